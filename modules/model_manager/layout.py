"""The CompVis key layout of a Stable Diffusion 1 checkpoint: every tensor's name and shape, from the architecture alone."""

from modules.model_manager.architecture import Architecture, TextShape, UNetShape, VaeShape

Shapes = dict[str, tuple[int, ...]]

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT = "cond_stage_model.transformer.text_model."


def expected_tensors(architecture: Architecture) -> Shapes:
    """Every tensor that a complete checkpoint of this architecture holds, name -> shape, in the file's usual order."""
    return {
        **_prefixed(UNET, unet_tensors(architecture.unet)),
        **_prefixed(VAE, vae_tensors(architecture.vae)),
        **_prefixed(TEXT, text_tensors(architecture.text)),
    }


def unet_tensors(shape: UNetShape) -> Shapes:
    """The denoiser's tensors without their prefix."""
    first = shape.channels[0]
    tensors = {
        **_linear("time_embed.0", first, 4 * first),
        **_linear("time_embed.2", 4 * first, 4 * first),
        **_conv("input_blocks.0.0", shape.in_channels, first),
    }
    skips = _unet_down(shape, tensors)
    middle = shape.channels[-1]
    tensors |= _unet_block("middle_block.0", middle, middle, 4 * first)
    if shape.mid_attention:
        tensors |= _transformer("middle_block.1", middle, shape)
    tensors |= _unet_block("middle_block.2", middle, middle, 4 * first)
    _unet_up(shape, skips, tensors)
    return {**tensors, **_norm("out.0", first), **_conv("out.2", first, shape.out_channels)}


def _unet_down(shape: UNetShape, tensors: Shapes) -> list[int]:
    """Adds the way down and returns the channels of every skip connection, first to last."""
    current, skips, index = shape.channels[0], [shape.channels[0]], 1
    for level, channels in enumerate(shape.channels):
        for _ in range(shape.layers):
            tensors |= _unet_block(f"input_blocks.{index}.0", current, channels, 4 * shape.channels[0])
            if shape.attention[level]:
                tensors |= _transformer(f"input_blocks.{index}.1", channels, shape)
            current = channels
            skips.append(current)
            index += 1
        if level < len(shape.channels) - 1:
            tensors |= _conv(f"input_blocks.{index}.0.op", current, current)
            skips.append(current)
            index += 1
    return skips


def _unet_up(shape: UNetShape, skips: list[int], tensors: Shapes) -> None:
    current, index = shape.channels[-1], 0
    for level, channels in reversed(list(enumerate(shape.channels))):
        for layer in range(shape.layers + 1):
            tensors |= _unet_block(f"output_blocks.{index}.0", current + skips.pop(), channels, 4 * shape.channels[0])
            current = channels
            if shape.attention[level]:
                tensors |= _transformer(f"output_blocks.{index}.1", channels, shape)
            if level > 0 and layer == shape.layers:
                tensors |= _conv(f"output_blocks.{index}.{2 if shape.attention[level] else 1}.conv", current, current)
            index += 1


def vae_tensors(shape: VaeShape) -> Shapes:
    """The autoencoder's tensors without their prefix; bare VAE files use these names too."""
    finest, deepest, latent = shape.channels[0], shape.channels[-1], shape.latent_channels
    tensors = _conv("encoder.conv_in", 3, finest)
    current = finest
    for level, channels in enumerate(shape.channels):
        for layer in range(shape.layers):
            tensors |= _vae_block(f"encoder.down.{level}.block.{layer}", current, channels)
            current = channels
        if level < len(shape.channels) - 1:
            tensors |= _conv(f"encoder.down.{level}.downsample.conv", current, current)
    tensors |= _vae_middle("encoder.mid", shape) | _norm("encoder.norm_out", deepest) | _conv("encoder.conv_out", deepest, 2 * latent)
    tensors |= _conv("decoder.conv_in", latent, deepest) | _vae_middle("decoder.mid", shape)
    current = deepest
    for level, channels in reversed(list(enumerate(shape.channels))):
        for layer in range(shape.layers + 1):
            tensors |= _vae_block(f"decoder.up.{level}.block.{layer}", current, channels)
            current = channels
        if level > 0:
            tensors |= _conv(f"decoder.up.{level}.upsample.conv", current, current)
    tensors |= _norm("decoder.norm_out", finest) | _conv("decoder.conv_out", finest, 3)
    if shape.quant:
        tensors |= _conv("quant_conv", 2 * latent, 2 * latent, 1) | _conv("post_quant_conv", latent, latent, 1)
    return tensors


def text_tensors(shape: TextShape) -> Shapes:
    """The text encoder's tensors without their prefix."""
    tensors = {
        "embeddings.token_embedding.weight": (shape.vocabulary, shape.width),
        "embeddings.position_embedding.weight": (shape.positions, shape.width),
    }
    for layer in range(shape.layers):
        name = f"encoder.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= _linear(f"{name}.self_attn.{projection}", shape.width, shape.width)
        tensors |= _norm(f"{name}.layer_norm1", shape.width)
        tensors |= _linear(f"{name}.mlp.fc1", shape.width, shape.feed_forward)
        tensors |= _linear(f"{name}.mlp.fc2", shape.feed_forward, shape.width)
        tensors |= _norm(f"{name}.layer_norm2", shape.width)
    return tensors | _norm("final_layer_norm", shape.width)


def _unet_block(name: str, inputs: int, outputs: int, time: int) -> Shapes:
    tensors = {
        **_norm(f"{name}.in_layers.0", inputs),
        **_conv(f"{name}.in_layers.2", inputs, outputs),
        **_linear(f"{name}.emb_layers.1", time, outputs),
        **_norm(f"{name}.out_layers.0", outputs),
        **_conv(f"{name}.out_layers.3", outputs, outputs),
    }
    return tensors | _conv(f"{name}.skip_connection", inputs, outputs, 1) if inputs != outputs else tensors


def _transformer(name: str, channels: int, shape: UNetShape) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    project = _linear if shape.linear_projection else _pointwise
    tensors = _norm(f"{name}.norm", channels) | project(f"{name}.proj_in", channels, channels)
    for attention, source in (("attn1", channels), ("attn2", shape.context)):
        tensors[f"{block}.{attention}.to_q.weight"] = (channels, channels)
        tensors[f"{block}.{attention}.to_k.weight"] = (channels, source)
        tensors[f"{block}.{attention}.to_v.weight"] = (channels, source)
        tensors |= _linear(f"{block}.{attention}.to_out.0", channels, channels)
    tensors |= _linear(f"{block}.ff.net.0.proj", channels, 8 * channels) | _linear(f"{block}.ff.net.2", 4 * channels, channels)
    for norm in ("norm1", "norm2", "norm3"):
        tensors |= _norm(f"{block}.{norm}", channels)
    return tensors | project(f"{name}.proj_out", channels, channels)


def _vae_block(name: str, inputs: int, outputs: int) -> Shapes:
    tensors = {
        **_norm(f"{name}.norm1", inputs),
        **_conv(f"{name}.conv1", inputs, outputs),
        **_norm(f"{name}.norm2", outputs),
        **_conv(f"{name}.conv2", outputs, outputs),
    }
    return tensors | _conv(f"{name}.nin_shortcut", inputs, outputs, 1) if inputs != outputs else tensors


def _vae_middle(name: str, shape: VaeShape) -> Shapes:
    channels = shape.channels[-1]
    tensors = _vae_block(f"{name}.block_1", channels, channels)
    if shape.mid_attention:
        tensors |= _norm(f"{name}.attn_1.norm", channels)
        for projection in ("q", "k", "v", "proj_out"):
            tensors |= _pointwise(f"{name}.attn_1.{projection}", channels, channels)
    return tensors | _vae_block(f"{name}.block_2", channels, channels)


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _pointwise(name: str, inputs: int, outputs: int) -> Shapes:
    return _conv(name, inputs, outputs, 1)


def _conv(name: str, inputs: int, outputs: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel, kernel), f"{name}.bias": (outputs,)}


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _prefixed(prefix: str, tensors: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in tensors.items()}
