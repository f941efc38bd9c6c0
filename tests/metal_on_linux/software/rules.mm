// Each rule that software Metal enforces, broken once in a process of its own: it must end there, and say why.
#import <Metal/Metal.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "metal_on_linux/software/gpu.h"
#include "metal_on_linux/software/machine.h"

namespace {

constexpr MTLResourceOptions kShared = MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked;
constexpr uint64_t kCount = 1000;

struct Gpu {
  id<MTLDevice> device = [MTLCopyAllDevices() objectAtIndex:0];
  id<MTLCommandQueue> queue = [device newCommandQueue];
  id<MTLComputePipelineState> add = pipeline(@"add");

  id<MTLComputePipelineState> pipeline(NSString* name, NSUInteger most = 0) {
    NSError* error = nil;
    MTLCompileOptions* options = [MTLCompileOptions new];
    options.mathMode = MTLMathModeSafe;
    id<MTLLibrary> library = [device newLibraryWithSource:@"#include <metal_stdlib>" options:options error:&error];
    MTLComputePipelineDescriptor* descriptor = [MTLComputePipelineDescriptor new];
    descriptor.computeFunction = [library newFunctionWithName:name
                                               constantValues:[MTLFunctionConstantValues new]
                                                        error:&error];
    descriptor.maxTotalThreadsPerThreadgroup = most;
    return [device newComputePipelineStateWithDescriptor:descriptor
                                                 options:MTLPipelineOptionNone
                                              reflection:nullptr
                                                   error:&error];
  }
  id<MTLBuffer> floats(uint64_t n, float value = 1) {
    id<MTLBuffer> made = [device newBufferWithLength:n * sizeof(float) options:kShared];
    for (uint64_t i = 0; i < n; ++i) static_cast<float*>(made.contents)[i] = value;
    return made;
  }
  id<MTLComputeCommandEncoder> encoder(id<MTLCommandBuffer> commands) {
    return [commands computeCommandEncoderWithDispatchType:MTLDispatchTypeConcurrent];
  }
  /// out = a + b
  void dispatch(id<MTLComputeCommandEncoder> encoder, id<MTLBuffer> a, id<MTLBuffer> b, id<MTLBuffer> out,
                NSUInteger threads = 256) {
    [encoder setComputePipelineState:add];
    [encoder setBuffer:a offset:0 atIndex:0];
    [encoder setBuffer:b offset:0 atIndex:1];
    [encoder setBuffer:out offset:0 atIndex:2];
    [encoder setBytes:&kCount length:sizeof kCount atIndex:3];
    [encoder dispatchThreadgroups:MTLSizeMake(4, 1, 1) threadsPerThreadgroup:MTLSizeMake(threads, 1, 1)];
  }
  void finish(id<MTLComputeCommandEncoder> encoder, id<MTLCommandBuffer> commands) {
    [encoder endEncoding];
    [commands commit];
    [commands waitUntilCompleted];
  }
  /// One dispatch of these.
  void run(id<MTLBuffer> a, id<MTLBuffer> b, id<MTLBuffer> out) {
    id<MTLCommandBuffer> commands = [queue commandBuffer];
    id<MTLComputeCommandEncoder> one = encoder(commands);
    dispatch(one, a, b, out);
    finish(one, commands);
  }
};

struct Rule {
  const char* said;  // part of the message; empty: the process returns 0 where the rule holds
  std::function<bool(Gpu&)> broken;
};

std::map<std::string, Rule> rules() {
  std::map<std::string, Rule> all;
  all["nothing broken"] = {"", [](Gpu& gpu) {
                             id<MTLBuffer> out = gpu.floats(kCount);
                             gpu.run(gpu.floats(kCount), gpu.floats(kCount), out);
                             return static_cast<float*>(out.contents)[kCount - 1] == 2;
                           }};
  all["the CPU reads before completion"] = {"", [](Gpu& gpu) {
                                              id<MTLBuffer> out = gpu.floats(kCount);
                                              id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                              id<MTLComputeCommandEncoder> one = gpu.encoder(commands);
                                              gpu.dispatch(one, gpu.floats(kCount), gpu.floats(kCount), out);
                                              [one endEncoding];
                                              [commands commit];
                                              const bool early = static_cast<float*>(out.contents)[0] !=
                                                                 1;  // nothing is there before the wait
                                              [commands waitUntilCompleted];
                                              return !early && static_cast<float*>(out.contents)[0] == 2;
                                            }};
  all["a write read without a barrier"] = {"", [](Gpu& gpu) {  // under some schedule
                                             bool noticed = false;
                                             for (const bool barrier : {true, false}) {
                                               id<MTLBuffer> sum = gpu.floats(kCount), out = gpu.floats(kCount);
                                               id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                               id<MTLComputeCommandEncoder> one = gpu.encoder(commands);
                                               gpu.dispatch(one, gpu.floats(kCount), gpu.floats(kCount), sum);
                                               if (barrier) [one memoryBarrierWithScope:MTLBarrierScopeBuffers];
                                               gpu.dispatch(one, sum, sum, out);
                                               gpu.finish(one, commands);
                                               const bool right = static_cast<float*>(out.contents)[0] == 4;
                                               if (barrier && !right) return false;
                                               noticed = !right;
                                             }
                                             return noticed;
                                           }};
  all["an unbound buffer"] = {"nothing is bound", [](Gpu& gpu) {
                                gpu.run(gpu.floats(kCount), nil, gpu.floats(kCount));
                                return false;
                              }};
  all["a short parameter"] = {"shorter than its argument", [](Gpu& gpu) {
                                id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                id<MTLComputeCommandEncoder> one = gpu.encoder(commands);
                                [one setComputePipelineState:gpu.add];
                                for (NSUInteger i = 0; i < 3; ++i)
                                  [one setBuffer:gpu.floats(kCount) offset:0 atIndex:i];
                                [one setBytes:&kCount length:4 atIndex:3];
                                [one dispatchThreadgroups:MTLSizeMake(1, 1, 1)
                                    threadsPerThreadgroup:MTLSizeMake(256, 1, 1)];
                                gpu.finish(one, commands);
                                return false;
                              }};
  all["a short buffer"] = {"outside", [](Gpu& gpu) {
                             gpu.run(gpu.floats(kCount), gpu.floats(16), gpu.floats(kCount));
                             return false;
                           }};
  all["an offset past the end"] = {"past the buffer's end", [](Gpu& gpu) {
                                     id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                     [gpu.encoder(commands) setBuffer:gpu.floats(4) offset:16 atIndex:0];
                                     return false;
                                   }};
  all["more than 1024 threads"] = {"1024 threads", [](Gpu& gpu) {
                                     id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                     gpu.dispatch(gpu.encoder(commands), gpu.floats(kCount), gpu.floats(kCount),
                                                  gpu.floats(kCount), 1025);
                                     return false;
                                   }};
  all["more threads than the pipeline was made for"] = {"pipeline was made for", [](Gpu& gpu) {
                                                          gpu.add = gpu.pipeline(@"add", 128);
                                                          id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                                          gpu.dispatch(gpu.encoder(commands), gpu.floats(kCount),
                                                                       gpu.floats(kCount), gpu.floats(kCount));
                                                          return false;
                                                        }};
  all["setBytes of more than 4 KB"] = {"4 KB", [](Gpu& gpu) {
                                         const std::vector<char> bytes(4097);
                                         [gpu.encoder([gpu.queue commandBuffer]) setBytes:bytes.data()
                                                                                   length:bytes.size()
                                                                                  atIndex:0];
                                         return false;
                                       }};
  all["a dispatch without a pipeline"] = {"without a pipeline", [](Gpu& gpu) {
                                            [gpu.encoder([gpu.queue commandBuffer])
                                                 dispatchThreadgroups:MTLSizeMake(1, 1, 1)
                                                threadsPerThreadgroup:MTLSizeMake(32, 1, 1)];
                                            return false;
                                          }};
  all["a second encoder"] = {"while one is open", [](Gpu& gpu) {
                               id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                               id<MTLComputeCommandEncoder> one = gpu.encoder(commands), two = gpu.encoder(commands);
                               return one == two;
                             }};
  all["commit with an open encoder"] = {"open encoder", [](Gpu& gpu) {
                                          id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                                          id<MTLComputeCommandEncoder> one = gpu.encoder(commands);
                                          [commands commit];
                                          return one == nil;
                                        }};
  all["an encoder that never ends"] = {"without endEncoding", [](Gpu& gpu) {
                                         @autoreleasepool {
                                           (void)gpu.encoder([gpu.queue commandBuffer]);
                                         }
                                         return false;
                                       }};
  all["a wait before commit"] = {"never end", [](Gpu& gpu) {
                                   [[gpu.queue commandBuffer] waitUntilCompleted];
                                   return false;
                                 }};
  all["commit twice"] = {"commit twice", [](Gpu& gpu) {
                           id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
                           [commands commit];
                           [commands commit];
                           return false;
                         }};
  all["a wait for a fence that nobody has updated"] = {"nobody has updated", [](Gpu& gpu) {
                                                         [gpu.encoder([gpu.queue commandBuffer])
                                                             waitForFence:[gpu.device newFence]];
                                                         return false;
                                                       }};
  all["a residency set that nobody requested"] = {"nobody requested", [](Gpu& gpu) {
                                                    NSError* error = nil;
                                                    id<MTLResidencySet> set = [gpu.device
                                                        newResidencySetWithDescriptor:[MTLResidencySetDescriptor new]
                                                                                error:&error];
                                                    [gpu.queue addResidencySet:set];
                                                    [set addAllocation:gpu.floats(kCount)];
                                                    [set commit];
                                                    gpu.run(gpu.floats(kCount), gpu.floats(kCount), gpu.floats(kCount));
                                                    return false;
                                                  }};
  all["memory that was removed but not committed stays"] = {
      "", [](Gpu& gpu) {
        NSError* error = nil;
        id<MTLResidencySet> set = [gpu.device newResidencySetWithDescriptor:[MTLResidencySetDescriptor new]
                                                                      error:&error];
        const NSUInteger before = gpu.device.currentAllocatedSize;
        @autoreleasepool {
          id<MTLBuffer> buffer = gpu.floats(kCount);
          [set addAllocation:buffer];
          [set commit];
          [set removeAllocation:buffer];
        }
        const bool stayed = gpu.device.currentAllocatedSize > before;
        [set commit];
        return stayed && gpu.device.currentAllocatedSize == before;
      }};
  all["a queue after an error"] = {"", [](Gpu& gpu) {  // refuses, and another does not
                                     id<MTLBuffer> ones = gpu.floats(kCount), out = gpu.floats(kCount);
                                     software_gpu::fault = "page fault";
                                     gpu.run(ones, ones, out);
                                     gpu.run(ones, ones, out);
                                     const bool refused = static_cast<float*>(out.contents)[0] == 1;
                                     gpu.queue = [gpu.device newCommandQueue];
                                     gpu.run(ones, ones, out);
                                     return refused && static_cast<float*>(out.contents)[0] == 2;
                                   }};
  all["a command buffer that would keep an M1 for more than half a second"] = {
      "", [](Gpu& gpu) {
        software_gpu::only_timed = true;
        for (const NSUInteger groups : {NSUInteger{1000}, NSUInteger{200000000}}) {
          id<MTLCommandBuffer> commands = [gpu.queue commandBuffer];
          id<MTLComputeCommandEncoder> one = gpu.encoder(commands);
          [one setComputePipelineState:gpu.add];
          [one dispatchThreadgroups:MTLSizeMake(groups, 1, 1) threadsPerThreadgroup:MTLSizeMake(256, 1, 1)];
          gpu.finish(one, commands);
          const bool failed = commands.status == MTLCommandBufferStatusError;
          if (failed != (groups > 1000) || (failed && commands.error.code != MTLCommandBufferErrorTimeout))
            return false;
        }
        return true;
      }};
  all["a default device without CoreGraphics"] = {"", [](Gpu&) { return MTLCreateSystemDefaultDevice() == nil; }};
  all["the families of another maker"] = {"", [](Gpu& gpu) {
                                            software_gpu::machine().family = 0;
                                            const auto has = [&](NSInteger family) {
                                              return [gpu.device supportsFamily:static_cast<MTLGPUFamily>(family)];
                                            };
                                            return has(5001) && !has(MTLGPUFamilyApple5);  // Metal3, for one
                                          }};
  all["a library of a language that the system does not know"] = {
      "", [](Gpu& gpu) {
        const auto compiles = [&](NSString* text, MTLLanguageVersion version) {
          MTLCompileOptions* options = [MTLCompileOptions new];
          options.languageVersion = version, options.mathMode = MTLMathModeSafe, options.fastMathEnabled = NO;
          NSError* error = nil;
          return [gpu.device newLibraryWithSource:text options:options error:&error] != nil;
        };
        NSString* plain = @"#include <metal_stdlib>\n";
        NSString* bare = @"#include <metal_stdlib>\n#pragma METAL fp contract(off)\n";
        NSString* contracted = @"#include <metal_stdlib>\ninstantiate_kernel(";
        const bool now = compiles(plain, MTLLanguageVersion3_2);
        software_gpu::machine().macos = 14;
        return now && compiles(plain, MTLLanguageVersion3_1) && !compiles(plain, MTLLanguageVersion3_2) &&
               !compiles(bare, MTLLanguageVersion3_1) && !compiles(contracted, MTLLanguageVersion3_1);
      }};
  return all;
}

/// What a process of `program` for this rule says, and how it ends.
std::pair<std::string, int> said_by(const std::string& program, const std::string& rule) {
  FILE* pipe = popen(("'" + program + "' '" + rule + "' 2>&1").c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  return {text, pclose(pipe)};
}

}  // namespace

int main(int argc, char** argv) {
  const auto all = rules();
  if (argc > 1) {
    @autoreleasepool {
      Gpu gpu;
      return all.at(argv[1]).broken(gpu) ? 0 : 1;
    }
  }
  setenv("FOUNDRY_METAL_SCHEDULE", "1", 1);  // what nothing orders runs the other way round
  size_t enforced = 0;
  for (const auto& [name, rule] : all) {
    const auto [text, status] = said_by(argv[0], name);
    const bool found = *rule.said == 0 ? status == 0 : status != 0 && text.find(rule.said) != std::string::npos;
    enforced += found ? 1 : 0;
    if (!found) std::printf("%s: ended with %d: %s\n", name.c_str(), status, text.c_str());
  }
  std::printf("software Metal: %zu of %zu rules enforced\n", enforced, all.size());
  return enforced == all.size() ? 0 : 1;
}
