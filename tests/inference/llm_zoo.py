"""A tiny random LLM of every decoder class in transformers.

A class's own configuration is taken with every size that has a usual name made small; what a class
needs beside that stands in `OVERRIDES`.
"""

import inspect
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

SMALL: dict[str, Any] = {
    "is_decoder": True,
    "max_position_embeddings": 256,
    "n_positions": 256,
    "n_ctx": 256,
    "max_seq_len": 256,
    "max_target_positions": 256,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    # widths
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "attention_hidden_size": 32,
    "embedding_size": 32,
    "word_embed_proj_dim": 32,
    "lru_width": 32,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "ffn_hidden_size": 64,
    "decoder_ffn_dim": 64,
    "dff": 64,
    # depths
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "decoder_layers": 2,
    # attention
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 16,
    "rotary_dim": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    # experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # states
    "state_size": 8,
    "ssm_state_size": 8,
    "chunk_size": 8,
    "time_step_rank": 4,
    "n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_dt_rank": 4,
    "mamba_expand": 2,
    "mamba_head_dim": 8,
    "mamba_n_groups": 1,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_chunk_size": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    # embeddings per layer
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 8,
}


def layers(*types: str) -> dict[str, Any]:
    return {"layer_types": list(types), "num_hidden_layers": len(types)}


LATENT = {"num_key_value_heads": 4}
"""Of attention through a latent space."""
LINEAR = layers("linear_attention", "full_attention", "linear_attention")
CONVOLVED = layers("conv", "full_attention", "conv")
DEFAULT = object()
"""In place of a small size: the class's own."""
OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": LATENT,
    "axk2": LATENT,
    "bailing_hybrid": {**LINEAR, **LATENT},
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "deepseek_v2": {**LATENT, "num_experts_per_tok": 2},
    "deepseek_v3": LATENT,
    "deepseek_v32": LATENT,
    "dots1": {
        **layers("full_attention", "full_attention"),
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
    },
    "falcon": {"head_dim": DEFAULT},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_text": {
        **layers("sliding_attention", "full_attention"),
        "hidden_size_per_layer_input": 0,
    },
    "glm4_moe_lite": LATENT,
    "glm_moe_dsa": LATENT,
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": ["global", "local"],
        "window_size": 16,
    },
    "granitemoehybrid": layers("mamba", "attention", "mamba"),
    "hunyuan_v1_dense": {"num_key_value_heads": 2, "head_dim": 8},
    "hunyuan_v1_moe": {"num_key_value_heads": 2, "head_dim": 8},
    "inkling2_text": {"n_routed_experts": 4, "num_hidden_layers": 2},
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "kimi_linear": {**LINEAR, **LATENT},
    "lfm2": {**CONVOLVED, "block_dim": 32, "block_ff_dim": 64},
    "lfm2_moe": CONVOLVED,
    "lfm3": CONVOLVED,
    "longcat_flash": {**LATENT, "head_dim": 8},
    "mamba2": {"num_heads": 8},
    "minicpm3": LATENT,
    "ministral": {"num_key_value_heads": 2, "head_dim": 8},
    "mpt": {"max_seq_len": 256},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "prophetnet": {"num_hidden_layers": DEFAULT, "num_decoder_layers": 2, "num_encoder_layers": 2},
    "qwen3_5_moe_text": LINEAR,
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "reformer": {"axial_pos_embds": False},
    "sarvam_mla": LATENT,
    "xlnet": {"max_position_embeddings": DEFAULT},
    "xmod": {"default_language": "en_XX"},
    "youtu": LATENT,
    "zamba": {
        "num_hidden_layers": 6,
        "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "mamba", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 2,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "mamba", "hybrid"],
        "hybrid_layer_ids": [2],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
MOST_PARAMETERS = 10_000_000
"""A class whose parts cannot all be made small is left out."""


class NotBuilt(Exception):
    """A class that the table does not make small."""


def model_types() -> list[str]:
    """Every decoder of the installed transformers, as it names them."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_llm_of(model_type: str, vocab_size: int) -> PreTrainedModel:
    """A tiny random LLM of a class, always with the same weights.

    Raises:
        NotBuilt: the class is not known here, or cannot be made small.
    """
    try:
        config = _small_config(model_type, vocab_size)
        with torch.device("meta"):
            sketch = AutoModelForCausalLM.from_config(config)
        parameters = sketch.num_parameters()
        if parameters > MOST_PARAMETERS:
            raise NotBuilt(f"{parameters:,} parameters")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).eval()
            _disturb(model)
        _read_eight_tokens(model)
    except NotBuilt:
        raise
    except Exception as error:
        raise NotBuilt(f"{type(error).__name__}: {str(error).splitlines()[0]}") from None
    return model


def _small_config(model_type: str, vocab_size: int) -> Any:
    config_class = type(AutoConfig.for_model(model_type))
    parameters = inspect.signature(config_class).parameters
    options = {"vocab_size": vocab_size}
    for name, value in SMALL.items():
        if name in parameters and parameters[name].default is not None:
            options[name] = value
    options.update(OVERRIDES.get(model_type, {}))
    return config_class(**{name: value for name, value in options.items() if value is not DEFAULT})


@torch.no_grad()
def _disturb(model: PreTrainedModel) -> None:
    """Biases and norms start as zeros and ones, which hide a tensor that is mixed up."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))


@torch.no_grad()
def _read_eight_tokens(model: PreTrainedModel) -> None:
    logits = model(input_ids=torch.arange(4, 12)[None]).logits
    if not logits.isfinite().all():
        raise NotBuilt("logits that are not finite")
