"""Prints the ```sh and ```python blocks of a Markdown file as one script: what a newcomer would type, in order.

The script ends at the first line that fails: `set -e` alone would go on where the first half of `a && b` fails.
"""

import re
import sys
from pathlib import Path

blocks = re.findall(r"^```(sh|python)\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL)
if not blocks:
    sys.exit(f"{sys.argv[1]}: no sh or python block")
for language, text in blocks:
    checked = re.sub(r"(?<!\\)$", " || exit", text.strip(), flags=re.MULTILINE)
    print(checked if language == "sh" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n")
