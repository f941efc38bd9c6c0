# requires: lm-eval[api]
"""``lm-eval``: the log-likelihood of a continuation is the one that ``Session.score`` gives."""

import json
import math
import sys

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

URL, MODEL = sys.argv[1:3]
context, continuation, expected = json.loads(sys.argv[3])
model = LocalCompletionsAPI(
    base_url=f"{URL}/v1/completions", model=MODEL, tokenizer_backend="remote", max_length=4096, num_concurrent=1
)
asked = Instance("loglikelihood", {}, (context, continuation), 0)
(found, _), *_ = model.loglikelihood([asked])
assert math.isclose(found, expected, rel_tol=1e-6), (found, expected)
