"""Holds what the Metal device calls to Apple's own tables: every selector, argument type, enumerator and value.

The device compiles against apple/Metal/Metal.h alone, so each declaration there is looked up in metal-cpp's headers
(from the package mlx-metal, Apache-2.0) and each enumerator also in the metadata of pyobjc-framework-Metal (MIT). Both
are fetched, not kept. Then the declarations are spoilt one by one, and each time the check must say so.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
FETCHED = HERE.parent.parent / "build" / "apple_tables"
WHEELS = {
    "mlx-metal": ("0.32.4", "macosx_14_0_arm64"),
    "pyobjc-framework-Metal": ("12.2.2", "macosx_10_13_universal2"),
}
LANGUAGE = {"alloc", "new", "init", "dealloc", "respondsToSelector:", "stringWithUTF8String:"}  # in neither table
LANGUAGE_FUNCTIONS = {"NSClassFromString"}


@dataclass(frozen=True)
class Method:
    owner: str
    selector: str
    returns: str
    takes: tuple[str, ...]


@dataclass
class Tables:
    methods: dict[tuple[str, str], Method] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    enumerators: dict[str, set[int]] = field(default_factory=dict)  # as each of the two has it
    enum_types: dict[str, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)

    def find(self, owner: str, selector: str) -> Method | None:
        while owner:
            if (owner, selector) in self.methods:
                return self.methods[owner, selector]
            owner = self.parents.get(owner, "" if owner == "Object" else "Object")
        return None


def fetch(package: str) -> Path:
    version, platform = WHEELS[package]
    folder = FETCHED / f"{package}-{version}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", f"{package}=={version}", "--no-deps", "-d", FETCHED]
        command += ["--only-binary=:all:", "--platform", platform, "--python-version", "3.12"]
        subprocess.run(command, check=True)
        (wheel,) = FETCHED.glob(f"{package.lower().replace('-', '_')}-{version}-*.whl")
        zipfile.ZipFile(wheel).extractall(folder)
    return folder


def plain(kind: str) -> str:
    """One spelling for what Objective-C and metal-cpp each have their own for: `id<MTLBuffer>` is `Buffer*`."""
    kind = re.sub(r"\b(?:_Nullable|_Nonnull|nullable|__autoreleasing|const|class)\b", " ", kind)
    kind = re.sub(r"id<(\w+)>", r"\1*", kind)
    kind = re.sub(r"NSArray<[^;]*>", "NSArray", kind)
    kind = re.sub(r"\b(?:MTL|NS)::|\b(?:MTL|NS)(?=[A-Z])", "", kind)
    kind = re.sub(r"\bAutoreleased(\w+)", r"\1*", kind).replace("BOOL", "bool").replace("[]", "*")
    kind = re.sub(r"\[\s*\]", "*", kind)
    kind = kind.replace("GPUAddress", "uint64_t").replace("ObjectType", "Object*").replace("_Object", "Object")
    return re.sub(r"\s+", "", kind)


def value_of(expression: str, known: dict[str, int]) -> int | None:
    """None: of something that is no enumerator."""
    text = re.sub(r"\b[A-Za-z_]\w*", lambda m: str(known.get(m[0], m[0])), expression)
    return int(eval(text)) if re.fullmatch(r"(?:0x[\da-fA-F]+|[\d\s()+|<-])+", text) else None


def enumerators(body: str, prefix: str) -> dict[str, int]:
    found: dict[str, int] = {}
    following: int | None = 0
    for item in re.sub(r"//[^\n]*", "", body).split(","):
        name, _, expression = (part.strip() for part in item.partition("="))
        if not name:
            continue
        following = value_of(expression, found) if expression else following
        if following is None:
            continue
        found[prefix + name] = found[name] = following
        following += 1
    return {name: value for name, value in found.items() if name.startswith(prefix)} if prefix else found


def apples_tables() -> Tables:
    tables = Tables()
    folder = fetch("mlx-metal") / "mlx" / "include" / "metal_cpp"
    texts = {
        path: path.read_text(encoding="utf-8")
        for part in ("Metal", "Foundation")
        for path in folder.glob(f"{part}/*.hpp")
    }
    spelled: dict[str, str] = {}
    for text in texts.values():
        spelled.update(re.findall(r"_(?:MTL|NS)_PRIVATE_DEF_SEL\(\s*(\w+),\s*\"([^\"]+)\"\)", text))
    for text in texts.values():
        tables.parents.update(
            (name, parent.split("::")[-1])
            for name, parent in re.findall(
                r"class (\w+) : public NS::(?:Copying|Referencing|SecureCoding)<\w+, ([\w:]+)>", text
            )
        )
        for kind, name, body in re.findall(r"_MTL_(?:ENUM|OPTIONS)\(([\w:]+), (\w+)\)\s*\{(.*?)\};", text, re.S):
            tables.enum_types[name] = plain(kind)
            for enumerator, value in enumerators(body, "MTL").items():
                tables.enumerators[enumerator] = {value}
        tables.functions.update(re.findall(r'extern "C" [\w:]+\*\s+(\w+)\(', text))
        method = r"_(?:MTL|NS)_INLINE ([^\n(]+?) ((?:MTL|NS)::\w+)::(\w+)\(([^\n]*)\)(?: const)?\s*\{(.*?)\n\}"
        for returns, owner, _, takes, body in re.findall(method, text, re.S):
            token = re.search(r"_(?:MTL|NS)_PRIVATE_SEL\((\w+)\)", body)
            if token is None or token[1] not in spelled:
                continue
            kinds = tuple(plain(without_name(one)) for one in split(takes))
            selector, name = spelled[token[1]], owner.split("::")[-1]
            tables.methods[name, selector] = Method(name, selector, plain(returns.replace("static ", "")), kinds)
    metadata = (fetch("pyobjc-framework-Metal") / "Metal" / "_metadata.py").read_text(encoding="utf-8")
    for name, value in re.findall(r"\b(MTL\w+)@(-?\d+)", metadata):
        tables.enumerators.setdefault(name, set()).add(int(value))
    return tables


def split(parameters: str) -> list[str]:
    found, depth = [""], 0
    for character in parameters:
        depth += (character in "(<[") - (character in ")>]")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [one.strip() for one in found if one.strip()]


def without_name(parameter: str) -> str:
    if "(^" in parameter:
        return re.sub(r"\(\^\s*\w*\s*\)", "(^)", re.sub(r"(\bvoid\s*\*|UInteger)\s+\w+", r"\1", parameter))
    return re.sub(r"\b\w+\s*((?:\[\])?)$", r"\1", parameter)


@dataclass
class Ours:
    methods: list[Method]
    enumerators: dict[str, int]
    enum_types: dict[str, str]
    functions: set[str]


def our_declarations(text: str) -> Ours:
    text = re.sub(r"//[^\n]*|^#(?:if|else|endif).*$", "", text, flags=re.M)
    text = re.sub(r"\s*API_AVAILABLE\(macos\([\d.]+\)\)", "", text).replace("FoundryMTL", "MTL")
    methods = []
    for owner, body in re.findall(r"^@(?:interface|protocol) (\w+)\b[^;\n]*\n(.*?)^@end", text, re.S | re.M):
        name = plain(owner)
        for returns, declared in re.findall(r"^[-+] ?\((.*?)\)\s*(\w+(?:;|:.*?;))", body, re.S | re.M):
            selector, takes = declared.rstrip(";"), ()
            if ":" in declared:
                parts = re.findall(r"(\w+):\s*\(((?:[^()]|\([^()]*\))*)\)\s*\w*", declared)
                selector, takes = (
                    "".join(f"{part}:" for part, _ in parts),
                    tuple(plain(without_names(k)) for _, k in parts),
                )
            methods.append(Method(name, selector, plain(returns), takes))
        for attributes, kind, called in re.findall(r"@property\(([^)]*)\)\s*([^;]+?)\s*\b(\w+);", body):
            methods.append(Method(name, called, plain(kind), ()))
            if "readonly" not in attributes:
                setter = f"set{called[0].upper()}{called[1:]}:"
                methods.append(Method(name, setter, "void", (plain(kind),)))
    values: dict[str, int] = {}
    types = {}
    for kind, name, body in re.findall(r"NS_(?:ENUM|OPTIONS)\((\w+), (\w+)\)\s*\{(.*?)\}", text, re.S):
        types[plain(name)] = plain(kind)
        values.update(enumerators(body, ""))
    return Ours(methods, values, types, set(re.findall(r'extern "C" [^;]*?\b(\w+)\(', text)))


def without_names(kind: str) -> str:
    return without_name(kind) if "(^" in kind else kind


def same(ours: tuple[str, ...], theirs: tuple[str, ...], apple: Tables) -> bool:
    """Where an older SDK lacks a type, `id` stands for any object, and an enumeration's own type for it."""
    if len(ours) != len(theirs):
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(a == b or (a == "id" and b.endswith("*")) or a == apple.enum_types.get(b) for a, b in pairs)


def faults(ours: Ours, apple: Tables) -> list[str]:
    found = []
    for method in ours.methods:
        if method.selector in LANGUAGE:
            continue
        known = apple.find(method.owner, method.selector)
        who = f"-[{method.owner} {method.selector}]"
        if known is None:
            found.append(f"{who}: Apple has no such method")
        elif not same(method.takes, known.takes, apple):
            found.append(f"{who}: takes {', '.join(method.takes)}; Apple's {', '.join(known.takes)}")
        elif method.returns not in ("instancetype", known.returns):
            found.append(f"{who}: returns {method.returns}; Apple's {known.returns}")
    for name, value in ours.enumerators.items():
        if apple.enumerators.get(name) != {value}:
            found.append(f"{name}: is {value}; Apple's {apple.enumerators.get(name)}")
    for name, kind in ours.enum_types.items():
        if apple.enum_types.get(name) != kind:
            found.append(f"MTL{name}: is {kind}; Apple's {apple.enum_types.get(name)}")
    found += [f"{name}: Apple has no such function" for name in ours.functions - apple.functions - LANGUAGE_FUNCTIONS]
    return found


def spoilt(text: str) -> list[tuple[str, str]]:
    """The header with a fault in it, many times over."""
    variants = []
    for match in re.finditer(r"\b(\w+):\(", text):
        variants.append((f"{match[1]} misspelt", text[: match.start()] + match[1] + "s:(" + text[match.end() :]))
    for match in re.finditer(r"\(NSUInteger\)(?=\w+[\s;\]])", text):
        variants.append(("an int for NSUInteger", text[: match.start()] + "(int)" + text[match.end() :]))
    for match in re.finditer(r"= ([^,\n]+),", text):
        variants.append(
            (f"a value of {match[1]} and 1", text[: match.start()] + f"= ({match[1]}) + 1," + text[match.end() :])
        )
    return variants


def main() -> int:
    apple = apples_tables()
    headers = [HERE / "apple" / "Metal" / "Metal.h", HERE / "apple" / "Foundation" / "Foundation.h"]
    headers.append(HERE.parent.parent / "cpp" / "device" / "metal" / "newer_metal.h")
    text = "".join(path.read_text(encoding="utf-8") for path in headers)
    ours = our_declarations(text)
    found = faults(ours, apple)
    for fault in found:
        print(fault)
    missed = [what for what, bad in spoilt(text) if not faults(our_declarations(bad), apple)]
    for what in missed:
        print("not noticed:", what)
    n = len(spoilt(text))
    print(
        f"API truth: {len(ours.methods)} methods, {len(ours.enumerators)} enumerators of {len(ours.enum_types)} types; "
        f"{len(found)} faults; {n - len(missed)} of {n} planted faults noticed "
        f"(Apple's tables: {len(apple.methods)} methods, {len(apple.enumerators)} enumerators)"
    )
    return 1 if found or missed or len(ours.methods) < 50 or n < 50 else 0


if __name__ == "__main__":
    sys.exit(main())
