// CUDA kernels on a CPU, for tests: the threads of a block are coroutines that hand over at barriers, one block after
// the other. What races on a GPU does not race here.
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct Dim { int x = 1, y = 1; };
struct float4 { float x, y, z, w; };
static Dim threadIdx, blockIdx, blockDim;

static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
static float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
template <typename T> static T atomicAdd(T* target, T value) { T before = *target; *target += value; return before; }

static const int STACK_BYTES = 1 << 16;
static ucontext_t scheduler;
static std::vector<ucontext_t> threads;

enum State { RUNS, AT_BARRIER, AT_WARP_BARRIER, ENDED };
static std::vector<State> states;

static void hand_over(State state) {
  states[threadIdx.x] = state;
  swapcontext(&threads[threadIdx.x], &scheduler);
}
static void __syncthreads() { hand_over(AT_BARRIER); }

static unsigned __shfl_sync(unsigned, unsigned value, int lane) {
  static unsigned lanes[32];
  lanes[threadIdx.x % 32] = value;
  hand_over(AT_WARP_BARRIER);
  const unsigned result = lanes[lane];
  hand_over(AT_WARP_BARRIER);
  return result;
}

static std::function<void()> body;
static void enter() { body(); hand_over(ENDED); }

// Lets every thread run up to its next barrier; those at a barrier of the whole block wait for all others.
static bool run_to_barriers() {
  bool all_wait = true;
  for (size_t i = 0; i < states.size(); i++) {
    if (states[i] == AT_BARRIER || states[i] == ENDED) continue;
    threadIdx.x = i;
    states[i] = RUNS;
    swapcontext(&scheduler, &threads[i]);
    all_wait = false;
  }
  if (!all_wait) return true;
  bool any = false;
  for (State& state : states)
    if (state == AT_BARRIER) state = RUNS, any = true;
  return any;
}

static void launch(int grid_x, int grid_y, int block, std::function<void()> kernel) {
  std::vector<char> stacks((size_t)STACK_BYTES * block);
  body = kernel;
  blockDim.x = block;
  for (blockIdx.y = 0; blockIdx.y < grid_y; blockIdx.y++) {
    for (blockIdx.x = 0; blockIdx.x < grid_x; blockIdx.x++) {
      threads.assign(block, ucontext_t());
      states.assign(block, RUNS);
      for (int i = 0; i < block; i++) {
        getcontext(&threads[i]);
        threads[i].uc_stack.ss_sp = &stacks[(size_t)STACK_BYTES * i];
        threads[i].uc_stack.ss_size = STACK_BYTES;
        makecontext(&threads[i], enter, 0);
      }
      while (run_to_barriers()) {
      }
    }
  }
}
