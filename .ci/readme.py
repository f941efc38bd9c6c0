"""Prints the ```sh blocks of a Markdown file as one script: what a newcomer who follows it would type, in order."""

import re
import sys
from pathlib import Path

blocks = re.findall(r"^```sh\n(.*?)^```", Path(sys.argv[1]).read_text(), re.MULTILINE | re.DOTALL)
if not blocks:
    sys.exit(f"{sys.argv[1]}: no sh block")
print("\n".join(blocks))
