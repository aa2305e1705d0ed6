"""What parity.py compares: models, tokens and limits.

The shapes are those of the config.json files that the models were published with, cut to a few
layers where the whole would only be larger.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from compare import Comparison
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

ROOT = Path(__file__).resolve().parents[2]
SEED = 20251124


@dataclass(frozen=True)
class Limit:
    """Comparisons are written so that NaN fails them."""

    metric: str
    value: float
    is_floor: bool

    def holds(self, result: Comparison) -> bool:
        found = result[self.metric]
        return found >= self.value if self.is_floor else found < self.value

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.is_floor else '<'} {self.value}"


@dataclass(frozen=True)
class Case:
    num_tokens: int
    limit: Limit
    folder: Path | None = None
    config: dict | None = None  # of a model with random weights


def llama3_rope(factor: float) -> dict:
    return {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


LLAMA_32_1B = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0,
    "rope_scaling": llama3_rope(32.0), "tie_word_embeddings": True,
}
LLAMA_31_8B_OF_4_LAYERS = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0,
    "rope_scaling": llama3_rope(8.0), "tie_word_embeddings": False,
}
QWEN_25_7B_OF_4_LAYERS = {
    "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 4, "num_attention_heads": 28, "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 1000000.0,
    "use_sliding_window": False, "sliding_window": 131072, "tie_word_embeddings": False,
}
QWEN_3_8B_OF_4_LAYERS = {
    "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
    "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "rms_norm_eps": 1e-6, "max_position_embeddings": 40960, "rope_theta": 1000000.0,
    "use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": False,
}

SAME_TEXT = Limit("kl_mean", 1e-3, is_floor=False)
SAME_DIRECTION = Limit("cosine_min", 0.999, is_floor=True)

CASES = {
    "demo": Case(8192, SAME_TEXT, folder=ROOT / "models" / "demo"),
    "llama-3.2-1b": Case(4096, SAME_DIRECTION, config=LLAMA_32_1B),
    "llama-3.1-8b/4": Case(4096, SAME_DIRECTION, config=LLAMA_31_8B_OF_4_LAYERS),
    "qwen2.5-7b/4": Case(4096, SAME_DIRECTION, config=QWEN_25_7B_OF_4_LAYERS),
    "qwen3-8b/4": Case(4096, SAME_DIRECTION, config=QWEN_3_8B_OF_4_LAYERS),
}


def demo_ids(num_tokens: int) -> torch.Tensor:
    """The beginning of the retrieval benchmark's haystack, in the demo model's tokens."""
    tokenizer = Tokenizer.from_file(str(ROOT / "models" / "demo" / "tokenizer.json"))
    haystack = ROOT / "tests" / "bench" / "haystack" / "postgresql-15.txt"
    ids = tokenizer.encode(haystack.read_text(encoding="utf-8")[:num_tokens * 8]).ids[:num_tokens]
    if len(ids) < num_tokens:
        raise ValueError(f"the haystack gives {len(ids)} tokens only")
    return torch.tensor(ids)


def random_ids(num_tokens: int, vocab_size: int) -> torch.Tensor:
    return torch.randint(vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(SEED))


def reduced_config(config: dict) -> dict:
    """Narrow layers under the published heads."""
    heads = {"head_dim": config["hidden_size"] // config["num_attention_heads"]} | config
    return heads | {"vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1024}


def write_random_model(case: Case, folder: Path, device: str, reduced: bool) -> PretrainedConfig:
    """A model folder in bfloat16 as `transformers` writes it; weights depend on the device too."""
    config = AutoConfig.for_model(**(reduced_config(case.config) if reduced else case.config))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model = model.to_empty(device=device)
    model.tie_weights()
    generator = torch.Generator(device).manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Loud enough that attention is far from uniform and every scale and bias matters.
            if name.endswith("norm.weight"):
                parameter.normal_(1.0, 0.2, generator=generator)
            else:
                deviation = parameter.shape[1] ** -0.5 if parameter.dim() == 2 else 0.2
                parameter.normal_(0.0, deviation, generator=generator)
    model.save_pretrained(folder)
    return config
