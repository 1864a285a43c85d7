// The threads of a block as fibers: one runs until it must wait, then another continues. A fiber
// that has finished a thread continues with the next thread that has not started, so a kernel that
// never waits is a loop on one stack.
#pragma once

#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {

// Large enough for a kernel with its arrays; pages are allocated when they are touched.
constexpr size_t kStack = 128 << 10, kGuard = 4 << 10;

struct Fiber {
  const void* bottom = nullptr;  // of its stack, and the size of that
  size_t size = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
#ifdef __x86_64__
  void* top = nullptr;  // while it does not run
#else
  ucontext_t context;
#endif
};

#ifdef __x86_64__
// Pushes the registers that a function must preserve, stores the stack pointer in *from, loads `to`
// and pops. (swapcontext would also request the signal mask from the kernel, which takes twenty
// times as long.)
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.pushsection .text
.type shim_switch, @function
shim_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size shim_switch, . - shim_switch
.popsection
)");
#endif

inline Fiber caller;  // the thread that launches
inline Fiber *current = &caller, *previous = nullptr;
inline std::deque<Fiber> fibers;  // all that were created
inline std::deque<Fiber*> ready;  // can continue
inline std::vector<Fiber*> idle;  // have no thread; their stacks are kept for the next block
inline void (*run_thread)(int) = nullptr;
inline int next_thread = 0, all_threads = 0;

inline void has_switched() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(current->fake_stack, &previous->bottom, &previous->size);
#endif
}

inline void switch_to(Fiber* to) {
  previous = current;
  current = to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&previous->fake_stack, to->bottom, to->size);
#endif
#ifdef __x86_64__
  shim_switch(&previous->top, to->top);
#else
  swapcontext(&previous->context, &to->context);
#endif
  has_switched();
}

inline void take_threads();

inline Fiber* make_fiber() {
  void* const base = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED || mprotect(base, kGuard, PROT_NONE)) {
    std::perror("shim: no stack for a fiber");
    std::abort();
  }
  Fiber* const fiber = &fibers.emplace_back();
  char* const bottom = static_cast<char*>(base) + kGuard;
  fiber->bottom = bottom;
  fiber->size = kStack;
#ifdef __x86_64__
  // As shim_switch would have left it: six registers, the address to continue at, and no return
  // address. Tops that differ in their low bits do not evict each other from the cache.
  static int made = 0;
  void** const top = reinterpret_cast<void**>(bottom + kStack - made++ % 32 * 128);
  top[-1] = nullptr;
  top[-2] = reinterpret_cast<void*>(take_threads);
  fiber->top = top - 8;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = bottom;
  fiber->context.uc_stack.ss_size = kStack;
  makecontext(&fiber->context, take_threads, 0);
#endif
  return fiber;
}

// Returns a fiber that can continue, else one for a thread that has not started, else the launch.
inline Fiber* next_fiber() {
  if (!ready.empty()) {
    Fiber* const fiber = ready.front();
    ready.pop_front();
    return fiber;
  }
  if (next_thread == all_threads) return &caller;
  if (idle.empty()) return make_fiber();
  Fiber* const fiber = idle.back();
  idle.pop_back();
  return fiber;
}

// The endless loop of a fiber.
inline void take_threads() {
  has_switched();
  for (;;) {
    while (next_thread < all_threads) run_thread(next_thread++);
    idle.push_back(current);
    switch_to(next_fiber());
  }
}

// Calls thread(0) to thread(count - 1); returns when all have returned.
inline void run_threads(int count, void (*thread)(int)) {
  run_thread = thread;
  next_thread = 0;
  all_threads = count;
  switch_to(next_fiber());
}

// One thread waits here until another one opens the gate.
class Gate {
 public:
  void wait() {
    waiting_ = current;
    switch_to(next_fiber());
  }
  void open() { ready.push_back(waiting_); }

 private:
  Fiber* waiting_ = nullptr;
};

struct Lock {  // no other thread can interfere
  void lock() {}
  void unlock() {}
};

}  // namespace shim
