# requires: lm-eval[api]
"""``lm-eval``: a task of its own kind, over local data, finds the log-likelihoods that ``Session.score`` gives."""

import json
import math
import sys
import tempfile
from pathlib import Path

import lm_eval
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

URL, MODEL = sys.argv[1:3]
SCORED = json.loads(sys.argv[3])  # [context, {continuation: log-likelihood}], each
TASK = """
task: continuations
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: choices
doc_to_target: 0
target_delimiter: ""
metric_list: [{metric: acc}]
"""

with tempfile.TemporaryDirectory() as folder:
    data = Path(folder, "data.jsonl")
    rows = [{"context": context, "choices": list(several)} for context, several in SCORED]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path(folder, "continuations.yaml").write_text(TASK.replace("DATA", json.dumps(str(data))))
    model = LocalCompletionsAPI(
        base_url=f"{URL}/v1/completions", model=MODEL, tokenizer_backend="remote", max_length=4096, num_concurrent=1
    )
    tasks = TaskManager(include_path=folder, include_defaults=False)
    done = lm_eval.simple_evaluate(model, tasks=["continuations"], task_manager=tasks, log_samples=True)
    for sample in done["samples"]["continuations"]:
        expected = dict(SCORED)[sample["doc"]["context"]].values()
        found = [float(one[0]) for one in sample["filtered_resps"]]
        assert len(found) == len(expected)
        assert all(map(lambda a, b: math.isclose(a, b, rel_tol=1e-6), found, expected)), (found, expected)
    best = sum(max(several, key=several.get) == next(iter(several)) for _, several in SCORED) / len(SCORED)
    assert done["results"]["continuations"]["acc,none"] == best
