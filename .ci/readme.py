"""Prints the ```sh and ```python blocks of a Markdown file as one script: what a newcomer would type, in order."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"^```(sh|python)\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL)
if not blocks:
    sys.exit(f"{sys.argv[1]}: no sh or python block")
for language, text in blocks:
    print(text if language == "sh" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n")
