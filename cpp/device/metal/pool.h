// An autorelease pool that exceptions leave drained: one that is thrown past a pool's end would leave its objects to
// nobody.
#pragma once
#import <Foundation/Foundation.h>

#include <exception>

namespace foundry {

template <class F>
auto in_pool(const F& call) -> decltype(call()) {
  std::exception_ptr failed;
  @autoreleasepool {
    try {
      return call();
    } catch (...) {
      failed = std::current_exception();
    }
  }
  std::rethrow_exception(failed);
}

}  // namespace foundry
