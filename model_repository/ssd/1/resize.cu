// PIL's antialiased bilinear resize to SIDE x SIDE pixels, bit for bit, of many images of different sizes at once.
//
// Source: Pillow, src/libImaging/Resample.c. Weights are computed in double precision and rounded to integers of
// PRECISION_BITS; columns come first, then rows, each rounded to 8 bits. Compile without contraction into fused
// multiply-adds, which round once where PIL rounds twice.
//
// An image is a row of FIELDS numbers: address of its RGB pixels, bytes from row to row, width, height, and the rows of
// the images before it, which is its place in `between`.

enum { ADDRESS, STRIDE, WIDTH, HEIGHT, ROWS_BEFORE, FIELDS };
enum { SIDE = 300, CHANNELS = 3, PRECISION_BITS = 22, AXES = 2 };

__device__ double triangle(double x) {
  x = x < 0 ? -x : x;
  return x < 1 ? 1 - x : 0;
}

__device__ unsigned char rounded(int sum) {
  int value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

// Grid: images, axes. first, count: [image, axis, SIDE]; weights: [image, axis, max_taps, SIDE].
extern "C" __global__ void resize_weights(const long long* images, int max_taps, int* first, int* count, int* weights) {
  const int row = blockIdx.x * AXES + blockIdx.y;
  const int size = images[blockIdx.x * FIELDS + WIDTH + blockIdx.y];
  const double scale = (double)size / SIDE;
  const double support = scale < 1 ? 1 : scale;
  const double narrowing = 1 / support;
  for (int i = threadIdx.x; i < SIDE; i += blockDim.x) {
    const double center = (i + 0.5) * scale;
    int low = (int)(center - support + 0.5);
    int high = (int)(center + support + 0.5);
    low = low < 0 ? 0 : low;
    high = high > size ? size : high;
    double total = 0;
    for (int x = low; x < high; x++) total += triangle((x - center + 0.5) * narrowing);
    for (int x = low; x < high; x++) {
      double weight = triangle((x - center + 0.5) * narrowing);
      if (total != 0) weight /= total;
      weights[(row * max_taps + x - low) * SIDE + i] = (int)(0.5 + weight * (1 << PRECISION_BITS));
    }
    first[row * SIDE + i] = low;
    count[row * SIDE + i] = high - low;
  }
}

// Grid: groups of rows, images. between: [rows of all images, SIDE, CHANNELS].
extern "C" __global__ void resize_columns(const long long* images, int max_taps, int rows_per_block, const int* first,
                                          const int* count, const int* weights, unsigned char* between) {
  const long long* image = images + blockIdx.y * FIELDS;
  const int axis = blockIdx.y * AXES;
  const int start = blockIdx.x * rows_per_block;
  const int end = start + rows_per_block < image[HEIGHT] ? start + rows_per_block : (int)image[HEIGHT];
  for (int i = threadIdx.x; i < SIDE; i += blockDim.x) {
    const int low = first[axis * SIDE + i], taps = count[axis * SIDE + i];
    for (int y = start; y < end; y++) {
      const unsigned char* pixel = (const unsigned char*)image[ADDRESS] + y * image[STRIDE] + low * CHANNELS;
      int red = 1 << (PRECISION_BITS - 1), green = red, blue = red;
      for (int tap = 0; tap < taps; tap++, pixel += CHANNELS) {
        const int weight = weights[(axis * max_taps + tap) * SIDE + i];
        red += pixel[0] * weight;
        green += pixel[1] * weight;
        blue += pixel[2] * weight;
      }
      unsigned char* target = between + ((image[ROWS_BEFORE] + y) * SIDE + i) * CHANNELS;
      target[0] = rounded(red);
      target[1] = rounded(green);
      target[2] = rounded(blue);
    }
  }
}

// Grid: rows of the result, images. targets: the place of each image in `resized`, [places, SIDE, SIDE, CHANNELS].
extern "C" __global__ void resize_rows(const long long* images, int max_taps, const int* first, const int* count,
                                       const int* weights, const unsigned char* between, const long long* targets,
                                       unsigned char* resized) {
  const int axis = blockIdx.y * AXES + 1;
  const int y = blockIdx.x;
  const int low = first[axis * SIDE + y], taps = count[axis * SIDE + y];
  const unsigned char* source = between + (images[blockIdx.y * FIELDS + ROWS_BEFORE] + low) * SIDE * CHANNELS;
  unsigned char* target = resized + (targets[blockIdx.y] * SIDE + y) * SIDE * CHANNELS;
  for (int i = threadIdx.x; i < SIDE * CHANNELS; i += blockDim.x) {
    int sum = 1 << (PRECISION_BITS - 1);
    for (int tap = 0; tap < taps; tap++)
      sum += source[tap * SIDE * CHANNELS + i] * weights[(axis * max_taps + tap) * SIDE + y];
    target[i] = rounded(sum);
  }
}
