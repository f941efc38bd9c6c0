// What macOS 14's SDK does not declare, under names of our own: Apple's behind "Foundry" (api_truth.py holds them to
// Apple's). Nothing here refers to a newer class, so one build loads on every system from 14 on. Ask
// respondsToSelector: first.
#pragma once
#import <Metal/Metal.h>

NS_ASSUME_NONNULL_BEGIN
// macOS 15
@protocol FoundryMTLResidencySetDescriptor <NSObject>
- (void)setLabel:(nullable NSString*)label;
@end
@protocol FoundryMTLResidencySet <NSObject>
- (void)addAllocation:(id)allocation;
- (void)removeAllocation:(id)allocation;
- (void)commit;
- (void)requestResidency;
@end
@protocol FoundryMTLDevice <NSObject>
- (nullable id<FoundryMTLResidencySet>)newResidencySetWithDescriptor:(id)descriptor
                                                               error:
                                                                   (NSError* _Nullable __autoreleasing* _Nullable)error;
@end
@protocol FoundryMTLCommandQueue <NSObject>
- (void)addResidencySet:(id)residencySet;
- (void)removeResidencySet:(id)residencySet;
@end
@protocol FoundryMTLCompileOptions <NSObject>
- (void)setMathMode:(NSInteger)mathMode;
@end
NS_ASSUME_NONNULL_END
