"""What the engine does with a tensor, by the name that each family gives it."""

import pytest

from vrampack.models.tensornames import Role, parse_name

ROLES = [
    # tables and heads
    ("model.embed_tokens.weight", Role.TABLE),
    ("model.language_model.embed_tokens.weight", Role.TABLE),
    ("language_model.model.embed_tokens.weight", Role.TABLE),
    ("model.language_model.embed_tokens_per_layer.weight", Role.TABLE),
    ("transformer.wte.weight", Role.TABLE),
    ("gpt_neox.embed_in.weight", Role.TABLE),
    ("transformer.word_embeddings.weight", Role.TABLE),
    ("transformer.embedding.word_embeddings.weight", Role.TABLE),
    ("model.tok_embeddings.weight", Role.TABLE),
    ("backbone.embeddings.weight", Role.TABLE),
    ("embed.weight", Role.TABLE),
    ("lm_head.weight", Role.HEAD),
    ("language_model.lm_head.weight", Role.HEAD),
    ("embed_out.weight", Role.HEAD),
    ("transformer.output_layer.weight", Role.HEAD),
    ("output.weight", Role.HEAD),
    ("head.weight", Role.HEAD),
    # whole on every rank
    ("transformer.wpe.weight", Role.WHOLE),
    ("model.decoder.embed_positions.weight", Role.WHOLE),
    ("model.layers.3.mlp.gate.weight", Role.WHOLE),
    ("model.layers.3.mlp.router.weight", Role.WHOLE),
    ("model.layers.3.block_sparse_moe.gate.weight", Role.WHOLE),
    ("model.layers.3.feed_forward.router.weight", Role.WHOLE),
    ("language_model.model.layers.3.router.proj.weight", Role.WHOLE),
    ("transformer.blocks.3.ffn.router.layer.weight", Role.WHOLE),
    ("backbone.layers.3.mixer.gate.weight", Role.WHOLE),
    ("model.layers.3.mlp.shared_expert_gate.weight", Role.WHOLE),
    ("model.layers.3.self_attn.q_a_proj.weight", Role.WHOLE),
    ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight", Role.WHOLE),
    ("model.layers.3.self_attn.kv_a_proj_with_mqa.weight_scale_inv", Role.WHOLE),
    ("model.layers.3.self_attn.indexer.wq_b.weight", Role.WHOLE),
    ("layers.3.attn.wq_a.weight", Role.WHOLE),
    ("backbone.layers.3.mixer.fc1_latent_proj.weight", Role.WHOLE),
    # experts, routed and shared
    ("model.layers.3.mlp.experts.17.gate_proj.weight", Role.EXPERT),
    ("model.layers.3.mlp.experts.17.down_proj.weight_scale_inv", Role.EXPERT),
    ("model.layers.3.mlp.experts.gate_up_proj_blocks", Role.EXPERT),
    ("model.layers.3.mlp.experts.down_proj_bias", Role.EXPERT),
    ("model.layers.3.block_sparse_moe.experts.7.w2.weight", Role.EXPERT),
    ("language_model.model.layers.3.feed_forward.experts.gate_up_proj", Role.EXPERT),
    ("backbone.layers.3.mixer.experts.99.up_proj.weight", Role.EXPERT),
    ("layers.3.ffn.experts.99.w1.weight", Role.EXPERT),
    ("model.layers.3.mlp.shared_experts.down_proj.weight", Role.SHARED_EXPERT),
    ("model.layers.3.mlp.shared_expert.gate_proj.weight", Role.SHARED_EXPERT),
    ("model.layers.3.feed_forward.shared_expert.down_proj.weight", Role.SHARED_EXPERT),
    # attention
    ("model.layers.3.self_attn.q_proj.weight", Role.SPLIT),
    ("model.layers.3.self_attn.o_proj.weight", Role.SPLIT),
    ("model.layers.3.self_attn.kv_b_proj.weight", Role.SPLIT),
    ("model.layers.3.self_attn.k_proj.weight", Role.KEYS_OR_VALUES),
    ("model.layers.3.self_attn.v_proj.qweight", Role.KEYS_OR_VALUES),
    ("backbone.layers.3.mixer.k_proj.weight", Role.KEYS_OR_VALUES),
    ("bert.encoder.layer.3.attention.self.key.weight", Role.KEYS_OR_VALUES),
    ("model.layers.3.self_attn.qkv_proj.weight", Role.QUERIES_KEYS_VALUES),
    ("transformer.h.3.attn.c_attn.weight", Role.QUERIES_KEYS_VALUES),
    ("transformer.h.3.self_attention.query_key_value.weight", Role.QUERIES_KEYS_VALUES),
    ("transformer.blocks.3.norm_attn_norm.attn.Wqkv.weight", Role.QUERIES_KEYS_VALUES),
    ("model.layers.3.attention.wqkv.weight", Role.QUERIES_KEYS_VALUES),
    ("model.layers.3.self_attn.W_pack.weight", Role.QUERIES_KEYS_VALUES),
    ("model.transformer.blocks.3.att_proj.weight", Role.QUERIES_KEYS_VALUES),
    # states
    ("model.layers.3.linear_attn.in_proj_qkvz.weight", Role.SPLIT),
    ("backbone.layers.3.mixer.in_proj.weight", Role.SPLIT),
    ("model.layers.3.mamba.conv1d.weight", Role.SPLIT),
    # towers
    ("visual.blocks.3.attn.qkv.weight", Role.TOWER),
    ("model.visual.blocks.3.mlp.linear_fc1.weight", Role.TOWER),
    ("vision_tower.vision_model.encoder.layers.3.self_attn.k_proj.weight", Role.TOWER),
    ("model.vision_tower.transformer.layers.3.attention.q_proj.weight", Role.TOWER),
    ("vision_model.global_transformer.layers.3.self_attn.q_proj.weight", Role.TOWER),
    ("multi_modal_projector.linear_1.weight", Role.TOWER),
    ("model.embed_vision.embedding_projection.weight", Role.TOWER),
    ("model.audio_tower.conformer.0.attention.attn.q_proj.weight", Role.TOWER),
    ("model.sam_model.blocks.3.attn.qkv.weight", Role.TOWER),
    ("model.qwen2_model.model.model.layers.3.self_attn.q_proj.weight", Role.TOWER),
    ("vpm.encoder.layers.3.self_attn.k_proj.weight", Role.TOWER),
    ("resampler.kv_proj.weight", Role.TOWER),
    ("thinker.audio_tower.layers.3.fc1.weight", Role.TOWER),
    ("model.embed_tokens_extend.image_embed.img_processor.encoder.layers.3.mlp.fc1.weight", Role.TOWER),
    ("model.vision_embed_tokens.img_projection.0.weight", Role.TOWER),
    # prediction layers
    ("mtp.layers.0.mlp.experts.3.down_proj.weight", Role.PREDICT),
    ("mtp.fc.weight", Role.PREDICT),
    ("model.mtp_layers.0.input_proj.weight", Role.PREDICT),
    # never loaded
    ("talker.model.layers.3.self_attn.q_proj.weight", Role.UNUSED),
    ("token2wav.code2wav_dit_model.transformer_blocks.3.attn.to_q.weight", Role.UNUSED),
    ("model.layers.3.self_attn.rotary_emb.inv_freq", Role.UNUSED),
    ("h.3.attn.bias", Role.UNUSED),
    ("gpt_neox.layers.3.attention.masked_bias", Role.UNUSED),
    ("model.layers.3.mlp.down_proj.weight.quant_map", Role.UNUSED),
]


@pytest.mark.parametrize(("name", "role"), ROLES)
def test_role(name: str, role: Role) -> None:
    assert parse_name(name).role is role


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.31.mlp.up_proj.weight", 31),
        ("transformer.h.0.ln_1.weight", 0),
        ("transformer.blocks.7.ffn.experts.mlp.w1", 7),
        ("backbone.layers.12.mixer.D", 12),
        ("bert.encoder.layer.11.output.dense.weight", 11),
        ("transformer.encoder.layers.5.mlp.dense_h_to_4h.weight", 5),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_layer(name: str, layer: int | None) -> None:
    assert parse_name(name).layer == layer


@pytest.mark.parametrize(
    ("names", "engine"),
    [
        (
            ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
            "self_attn.qkv_proj.weight",
        ),
        (["mlp.gate_proj.qweight", "mlp.up_proj.qweight"], "mlp.gate_up_proj.qweight"),
        (["mlp.experts.0.gate_proj.weight", "mlp.experts.9.up_proj.weight"], "mlp.experts.w13.weight"),
        (["mlp.experts.0.down_proj.weight", "mlp.experts.9.down_proj.weight"], "mlp.experts.w2.weight"),
        (["self_attn.q_a_proj.weight", "self_attn.kv_a_proj_with_mqa.weight"], "self_attn.fused_qkv_a_proj.weight"),
        (["linear_attn.in_proj_qkv.weight", "linear_attn.in_proj_z.weight"], "linear_attn.in_proj_qkvz.weight"),
        (["mlp.gate_proj.scales"], "mlp.gate_up_proj.scales"),
    ],
)
def test_what_the_engine_fuses_has_one_name(names: list[str], engine: str) -> None:
    assert {parse_name(f"model.layers.5.{name}").fused for name in names} == {f"model.layers.#.{engine}"}


@pytest.mark.parametrize(
    "suffix", ["scales", "qzeros", "g_idx", "weight_scale", "weight_scale_inv", "weight_scale_2", "input_scale", "SCB"]
)
def test_scales_and_zero_points_are_no_parameters(suffix: str) -> None:
    assert parse_name(f"model.layers.5.mlp.down_proj.{suffix}").side
    assert not parse_name("model.layers.5.mlp.down_proj.weight").side
