// What software Metal knows of the strings, arrays and errors that it is handed or makes.
#pragma once
#import <Foundation/Foundation.h>

@interface FoundryURL : NSURL {
 @public
  NSString* _path;
}
- (NSString*)path;
@end
@interface FoundryArray : NSArray {
 @public
  id _object;
}
- (id)object;
@end
@interface FoundryError : NSError {
 @public
  NSInteger _code;
  NSString* _text;
}
+ (NSError*)errorWithCode:(NSInteger)code text:(const char*)text;
@end
