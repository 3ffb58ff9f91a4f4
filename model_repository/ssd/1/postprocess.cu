// Raw predictions to padded detections, in three kernels of fixed shapes that wait for nobody: part of a CUDA graph.
//
// They compute what ssd_triton/detector/postprocessing/reference.py does, in its order of ties: within a class the
// default box with the lower index first, between classes the lower class. The compiler is given TOPK (candidates of a
// class that enter suppression), DETECTIONS (of an image), SCORE_THRESH and NMS_THRESH; compile without contraction into
// fused multiply-adds, which would move boxes by a rounding error.

typedef unsigned long long Key;  // A score's bits above an index counted down: the larger key is the better one.

enum { SORTED = 1024, WORDS = (TOPK + 31) / 32, BINS = 256, WARP = 32 };
static_assert(TOPK <= 400 && DETECTIONS <= SORTED, "more than fits in the shared memory of a block");

__device__ Key key_of(float score, unsigned index) { return (Key)__float_as_uint(score) << 32 | (0xffffffffu - index); }
__device__ float score_of(Key key) { return __uint_as_float((unsigned)(key >> 32)); }
__device__ unsigned index_of(Key key) { return 0xffffffffu - (unsigned)key; }

// Finds the `wanted`-th largest key among more than that, eight bits at a time; keys are unique.
template <typename At>
__device__ Key nth_largest(At at, int places, int wanted) {
  __shared__ unsigned histogram[BINS];
  __shared__ Key found;
  __shared__ int missing;
  if (threadIdx.x == 0) found = 0, missing = wanted;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x) histogram[bin] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < places; i += blockDim.x) {
      const Key key = at(i);
      if (key && (shift == 56 || key >> (shift + 8) == found >> (shift + 8)))
        atomicAdd(&histogram[(key >> shift) % BINS], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = BINS - 1;
      while ((int)histogram[bin] < missing) missing -= histogram[bin--];
      found |= (Key)bin << shift;
    }
    __syncthreads();
  }
  return found;
}

// Leaves the largest `wanted` of the keys that `at` gives for 0 to `places` in `keys`, best first; 0 is no key.
template <typename At>
__device__ int best_of(At at, int places, int wanted, Key* keys) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < places; i += blockDim.x) {
    const Key key = at(i);
    if (key) {
      const int place = atomicAdd(&count, 1);
      if (place < SORTED) keys[place] = key;
    }
  }
  __syncthreads();
  int found = count;
  __syncthreads();
  if (found > SORTED) {
    const Key least = nth_largest(at, places, wanted);
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < places; i += blockDim.x) {
      const Key key = at(i);
      if (key >= least) keys[atomicAdd(&count, 1)] = key;
    }
    found = wanted;
    __syncthreads();
  }
  int size = 1;
  while (size < found) size *= 2;
  for (int i = found + threadIdx.x; i < size; i += blockDim.x) keys[i] = 0;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {  // bitonic sort
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const int other = i ^ step;
        if (other > i && (keys[i] < keys[other]) == ((i & run) == 0)) {
          const Key swapped = keys[i];
          keys[i] = keys[other];
          keys[other] = swapped;
        }
      }
      __syncthreads();
    }
  }
  return found < wanted ? found : wanted;
}

// IoU of two boxes (left, top, right, bottom) is NMS_THRESH or more.
__device__ bool overlap(float4 a, float4 b) {
  const float width = fmaxf(fminf(a.z, b.z) - fmaxf(a.x, b.x), 0.0f);
  const float height = fmaxf(fminf(a.w, b.w) - fmaxf(a.y, b.y), 0.0f);
  const float both = width * height;
  const float either = (a.z - a.x) * (a.w - a.y) + (b.z - b.x) * (b.w - b.y) - both;
  return either > 0 && both / either >= NMS_THRESH;
}

// Grid: groups of default boxes, images. peak, total: [image, box], the parts of a softmax that its classes share.
extern "C" __global__ void softmax_parts(const float* conf, int labels, int boxes, float* peak, float* total) {
  const int box = blockIdx.x * blockDim.x + threadIdx.x;
  if (box >= boxes) return;
  const float* logit = conf + (long long)blockIdx.y * labels * boxes + box;
  float highest = logit[0], sum = 0;
  for (int label = 1; label < labels; label++) highest = fmaxf(highest, logit[label * boxes]);
  for (int label = 0; label < labels; label++) sum += expf(logit[label * boxes] - highest);
  peak[blockIdx.y * boxes + box] = highest;
  total[blockIdx.y * boxes + box] = sum;
}

// Grid: classes without the background, images. kept: [image, class, TOPK] keys of (class * TOPK + rank), 0 beyond the
// last; kept_boxes: [image, class, TOPK] fractions of the image; defaults: [box], centre and size.
extern "C" __global__ void suppress(const float* loc, const float* conf, const float4* defaults, int labels, int boxes,
                                    const float* peak, const float* total, Key* kept, float4* kept_boxes) {
  __shared__ Key keys[SORTED];
  __shared__ float4 box[TOPK];
  __shared__ unsigned worse[TOPK][WORDS];  // bit j of row i: box i suppresses box j
  __shared__ unsigned stays[WORDS];
  const int class_index = blockIdx.x, image = blockIdx.y, classes = labels - 1;
  const float* logit = conf + ((long long)image * labels + class_index + 1) * boxes;
  peak += image * boxes;
  total += image * boxes;
  const auto candidate = [=](int i) -> Key {
    const float score = expf(logit[i] - peak[i]) / total[i];
    return score > SCORE_THRESH ? key_of(score, i) : 0;
  };
  const int count = best_of(candidate, boxes, TOPK, keys);
  const long long row = ((long long)image * classes + class_index) * TOPK;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const unsigned index = index_of(keys[i]);
    const float* offset = loc + (long long)image * 4 * boxes + index;
    const float4 from = defaults[index];
    const float x = from.x + offset[0] * 0.1f * from.z, y = from.y + offset[boxes] * 0.1f * from.w;
    const float half_width = from.z * expf(offset[2 * boxes] * 0.2f) / 2;
    const float half_height = from.w * expf(offset[3 * boxes] * 0.2f) / 2;
    box[i] = make_float4(x - half_width, y - half_height, x + half_width, y + half_height);
  }
  __syncthreads();
  const int words = (count + 31) / 32;
  for (int task = threadIdx.x; task < count * words; task += blockDim.x) {
    const int i = task / words, word = task % words;
    unsigned bits = 0;
    for (int j = word * 32 > i ? word * 32 : i + 1; j < word * 32 + 32 && j < count; j++)
      if (overlap(box[i], box[j])) bits |= 1u << (j % 32);
    worse[i][word] = bits;
  }
  __syncthreads();
  if (threadIdx.x < WARP) {  // Greedy: each lane holds one word of the boxes that are suppressed.
    unsigned suppressed = 0;
    for (int i = 0; i < count; i++) {
      const unsigned word = __shfl_sync(0xffffffffu, suppressed, i / 32);
      if (!(word >> (i % 32) & 1) && threadIdx.x < words) suppressed |= worse[i][threadIdx.x];
    }
    if (threadIdx.x < words) stays[threadIdx.x] = ~suppressed;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < TOPK; i += blockDim.x) kept[row + i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    if (!(stays[i / 32] >> (i % 32) & 1)) continue;
    int rank = __popc(stays[i / 32] & ((1u << (i % 32)) - 1));
    for (int word = 0; word < i / 32; word++) rank += __popc(stays[word]);
    kept[row + rank] = key_of(score_of(keys[i]), class_index * TOPK + rank);
    kept_boxes[row + rank] = box[i];
  }
}

// Grid: images. sizes: [image, 2], width and height in pixels; the rest is the models' outputs, zeros beyond `number`.
extern "C" __global__ void best_detections(const Key* kept, const float4* kept_boxes, const int* sizes, int classes,
                                           int* number, float4* boxes_px, float* scores, int* class_ids) {
  __shared__ Key keys[SORTED];
  const int image = blockIdx.x;
  kept += (long long)image * classes * TOPK;
  kept_boxes += (long long)image * classes * TOPK;
  const int count = best_of([=](int i) -> Key { return kept[i]; }, classes * TOPK, DETECTIONS, keys);
  const float width = sizes[image * 2], height = sizes[image * 2 + 1];
  for (int i = threadIdx.x; i < DETECTIONS; i += blockDim.x) {
    const int place = image * DETECTIONS + i;
    const bool found = i < count;
    const unsigned index = found ? index_of(keys[i]) : 0;
    const float4 box = found ? kept_boxes[index] : make_float4(0, 0, 0, 0);
    boxes_px[place] = make_float4(box.x * width, box.y * height, box.z * width, box.w * height);
    scores[place] = found ? score_of(keys[i]) : 0;
    class_ids[place] = found ? index / TOPK + 1 : 0;
  }
  if (threadIdx.x == 0) number[image] = count;
}
