"""A model's files: one GGUF file, the parts of a split one, or a directory in Hugging Face's form. What
is opened here is given to the core, and its metadata to the architectures."""

from foundry.files.directory import INDEX, WHOLE
from foundry.files.opened import ModelFiles, open_model
from foundry.files.sentence_transformers import MODULES, PROMPTS
from foundry.files.split import PART, part_by_name_alone

__all__ = ["INDEX", "MODULES", "PART", "PROMPTS", "WHOLE", "ModelFiles", "open_model", "part_by_name_alone"]
