// The kernels of model_repository/ssd with functions that launch them as the engine does.
#include "cuda_on_cpu.hpp"
#include "resize.cu"
#include "postprocess.cu"

extern "C" void resize(const long long* images, const long long* targets, int n, int rows, int max_height, int max_taps,
                       unsigned char* resized) {
  std::vector<int> first(n * AXES * SIDE), count(n * AXES * SIDE), weights(n * AXES * max_taps * SIDE);
  std::vector<unsigned char> between((size_t)rows * SIDE * CHANNELS);
  launch(n, AXES, 32, [&] { resize_weights(images, max_taps, first.data(), count.data(), weights.data()); });
  launch((max_height + 7) / 8, n, 32, [&] {
    resize_columns(images, max_taps, 8, first.data(), count.data(), weights.data(), between.data());
  });
  launch(SIDE, n, 32, [&] {
    resize_rows(images, max_taps, first.data(), count.data(), weights.data(), between.data(), targets, resized);
  });
}

extern "C" void postprocess(const float* loc, const float* conf, const float* defaults, const int* sizes, int n,
                            int labels, int boxes, int* number, float* boxes_px, float* scores, int* class_ids) {
  std::vector<float> peak(n * boxes), total(n * boxes);
  std::vector<Key> kept((size_t)n * (labels - 1) * TOPK);
  std::vector<float4> kept_boxes(kept.size());
  launch((boxes + 63) / 64, n, 64, [&] { softmax_parts(conf, labels, boxes, peak.data(), total.data()); });
  launch(labels - 1, n, 64, [&] {
    suppress(loc, conf, (const float4*)defaults, labels, boxes, peak.data(), total.data(), kept.data(), kept_boxes.data());
  });
  launch(n, 1, 64, [&] {
    best_detections(kept.data(), kept_boxes.data(), sizes, labels - 1, number, (float4*)boxes_px, scores, class_ids);
  });
}
