# requires: llm
"""``llm``: a model of its configuration asked, streamed, and under a schema."""

import json
import os
import sys
import tempfile
from pathlib import Path

URL, MODEL = sys.argv[1:3]
home = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = home.name
about = f"- model_id: foundry\n  model_name: {MODEL}\n  api_base: {URL}/v1\n  supports_schema: true\n"
Path(home.name, "extra-openai-models.yaml").write_text(about)

import llm  # noqa: E402  # it reads its configuration when it is asked for a model

model = llm.get_model("foundry")
model.key = "-"
asked = {"prompt": "Name a colour.", "temperature": 0, "max_tokens": 40}
whole = model.prompt(**asked, stream=False).text()
assert whole
assert "".join(model.prompt(**asked, stream=True)) == whole
schema = {"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"]}
assert json.loads(model.prompt(**asked, schema=schema, stream=False).text())["city"] in ("Oslo", "Rome")
