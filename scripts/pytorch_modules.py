"""The modules of the PyTorch package colt5-attention: constructor arguments, and the names and shapes of weights.

from_pytorch.py uses this file. A Spec says how a module's configuration follows from its object, or from a state dict
and what the user knows.
"""

import difflib

from pytorch_shapes import (
    VIT_ATTENTION,
    attention_shapes,
    block_shapes,
    cross_shapes,
    encoder_shapes,
    feed_forward_shapes,
    image_shapes,
    infer_attention,
    infer_autoregressive,
    infer_block,
    infer_encoder,
    infer_feed_forward,
    infer_heavy,
    infer_light,
    infer_local_mha,
    infer_mult,
    infer_router,
    infer_size,
    infer_vit,
    local_mha_shapes,
    pair,
    routed_feed_forward_shapes,
    router_shapes,
    vit_shapes,
)


class ConversionError(ValueError):
    """The input cannot be converted. The text says what is wrong and what was wanted."""


# Arguments that select an implementation, or that the package itself ignores. They do not change results.
WITHOUT_EFFECT = ("use_triton", "use_flash_attn", "flash_attn", "router_use_triton", "num_sets_kv")
ROUTER_WITHOUT_EFFECT = ("use_triton", "triton_checkpoint_segments")

ROUTER = {
    "n_iters": 20,
    "fetch_k_ratio": 9 / 8,
    "eps": 0.03,
    "eps_init": 4.0,
    "eps_decay": 0.7,
    "cosine_sim_routing": False,
    "cosine_sim_scale": 8,
    "route_block_size": None,
}
LONE_ROUTER = {"num_routing_tokens": 1, "learned_routing_tokens": False, "straight_through": True, **ROUTER}
HEAVY = {
    "num_routed_kv": 1,
    "heavy_dim_head": 64,
    "heavy_heads": 8,
    "router_straight_through": True,
    "multiply_keys_by_score": False,
    "multiply_queries_by_score": False,
    "use_null_q_tokens": True,
}
LIGHT = {"light_dim_head": 64, "light_heads": 8, "light_window_size": 128}
COUNTS = ("num_heavy_tokens_q", "num_heavy_tokens_kv")
BLOCK_COUNTS = ("num_heavy_attn_tokens_q", "num_heavy_attn_tokens_kv", "num_heavy_ff_tokens")
FEED_FORWARD = {"light_ff_mult": 0.5, "heavy_ff_mult": 4, "router_straight_through": True}
REQUIRED = object()  # stands for an argument without a default


class Spec:
    """One module.

    args: constructor arguments with their defaults. shapes(config): weights by name. infer(shapes): the arguments that
    follow from the shapes of a state dict. read(module): those that follow from the attributes of an object alone.
    """

    def __init__(self, required, defaults, shapes, infer, read, router=ROUTER):
        self.args = {**{name: REQUIRED for name in required}, **defaults}
        if router is not None:
            self.args["router_kwargs"] = {}
        self.router, self.shapes, self.infer, self.read = router, shapes, infer, read


# ---- arguments that only an object has -------------------------------------------------------------------------------


def read_router(r):
    return {name: getattr(r, name) for name in ROUTER}


def read_lone_router(r):
    return {**read_router(r), "num_routing_tokens": r.num_routing_tokens, "straight_through": r.straight_through}


def read_routers(m, *names, ignore=()):
    """The settings of a module's routers, which must be equal."""
    routers = [getattr(m, name) for name in names]
    first = read_router(routers[0])
    for name, r in zip(names, routers):
        for key in set(first) - set(ignore):
            if getattr(r, key) != first[key]:
                raise ConversionError(
                    f"{key} of {name} is {getattr(r, key)!r} and of {names[0]} {first[key]!r}; "
                    f"a {type(m).__name__} has one setting for both"
                )
        if r.straight_through != routers[0].straight_through:
            raise ConversionError(f"straight_through of {name} and {names[0]} differ")
    return {"router_kwargs": first, "router_straight_through": routers[0].straight_through}


def read_feed_forward(m):
    return {"num_heavy_tokens": m.num_heavy_tokens, **read_routers(m, "router")}


def read_heavy(m):
    return {
        "num_heavy_tokens_q": m.num_heavy_tokens_q,
        "num_heavy_tokens_kv": m.num_heavy_tokens_kv,
        "multiply_keys_by_score": m.heavy_attn.multiply_keys_by_score,
        "multiply_queries_by_score": m.multiply_queries_by_score,
        **read_routers(m, "q_router", "kv_router"),
    }


def read_light(m, factor):
    """factor: the windows of LocalMHA are light_window_size divided by this."""
    heads = m.light_attn.heads
    return {
        "light_heads": heads,
        "light_dim_head": m.light_attn.to_qkv.weight.shape[0] // 3 // heads,
        "light_window_size": m.light_attn.window_size * factor,
    }


def read_attention(m):
    return {**read_heavy(m), **(read_light(m, 2) if m.light_attn is not None else {})}


def read_autoregressive(m):
    return {**read_heavy(m), **read_light(m, 1), "heavy_window_size": m.heavy_window_size}


def read_cross(m):
    read = {
        "num_tokens_q": m.num_tokens_q,
        "num_tokens_kv": m.num_tokens_kv,
        "route_block_size": m.kv_router.route_block_size,
        "multiply_keys_by_score": m.heavy_attn.multiply_keys_by_score,
        **read_routers(m, "q_router", "kv_router", ignore=["route_block_size"]),
    }
    if read["router_kwargs"].pop("route_block_size") is not None:
        raise ConversionError("route_block_size of q_router is set; in a cross-attention only kv_router has blocks")
    return read


def read_image(m):
    heads = m.light_attn.heads
    return {
        **read_heavy(m),
        "light_heads": heads,
        "light_dim_head": m.light_attn.to_qkv.weight.shape[0] // 3 // heads,
        "light_window_size": m.light_window_size,
        "channel_first": m.channel_first,
    }


def same_router(kind, first, other):
    for key in ("router_kwargs", "router_straight_through"):
        if first[key] != other[key]:
            raise ConversionError(
                f"{key} of the attention is {first[key]} and of the feedforward {other[key]}; "
                f"a {kind} has one setting for both"
            )


def read_block(m):
    attention, feed_forward = read_attention(m.conditional_attn), read_feed_forward(m.conditional_ff)
    same_router("ConditionalRoutedTransformerBlock", attention, feed_forward)
    attention["num_heavy_attn_tokens_q"] = attention.pop("num_heavy_tokens_q")
    attention["num_heavy_attn_tokens_kv"] = attention.pop("num_heavy_tokens_kv")
    return {**attention, "num_heavy_ff_tokens": feed_forward["num_heavy_tokens"]}


def read_vit(m):
    layers = [(read_image(a), read_feed_forward(f)) for a, f in m.transformer.layers]
    for i, layer in enumerate(layers):
        same_router("ConditionalRoutedViT", *layer)
        if layer != layers[0]:
            raise ConversionError(f"layer {i} of the ViT has other settings than layer 0")
    attention, feed_forward = layers[0]
    sizes = m.to_patch_embedding[0].axes_lengths
    patch = (sizes["p1"], sizes["p2"])
    return {
        **{"attn_" + name: attention[name] for name in VIT_ATTENTION if name in attention},
        "ff_num_heavy_tokens": feed_forward["num_heavy_tokens"],
        "patch_size": list(patch) if patch[0] != patch[1] else patch[0],
        "channels": m.to_patch_embedding[1].weight.shape[0] // (patch[0] * patch[1]),
        "router_kwargs": attention["router_kwargs"],
        "router_straight_through": attention["router_straight_through"],
    }


def read_local_mha(m):
    f = m.attn_fn
    for name, value, want in (
        ("qk_rmsnorm", m.qk_rmsnorm, False),
        ("use_xpos", f.use_xpos, False),
        ("shared_qk", f.shared_qk, False),
        ("gate_values_per_head", m.to_v_gate is not None, False),
        ("scale", f.scale, None),
        ("look_backward", f.look_backward, 1),
        ("look_forward", f.look_forward, 0 if m.causal else 1),
    ):
        if value != want:
            raise ConversionError(f"{name} of the LocalMHA is {value}, want {want}: this library has no other")
    return {
        "window_size": m.window_size,
        "heads": m.heads,
        "dim_head": m.to_qkv.weight.shape[0] // 3 // m.heads,
        "causal": m.causal,
        "exact_windowsize": m.exact_windowsize,
    }


SPECS = {
    "RMSNorm": Spec(
        ["dim"],
        {},
        lambda c: {"gamma": (c["dim"],)},
        lambda s: infer_size(s, "gamma", 1, 0, "dim"),
        lambda m: {},
        router=None,
    ),
    "FeedForward": Spec(
        ["dim"],
        {"mult": 4},
        lambda c: feed_forward_shapes(c["dim"], c["mult"]),
        lambda s: {**infer_size(s, "0.gamma", 1, 0, "dim"), **infer_mult(s, "", "mult")},
        lambda m: {},
        router=None,
    ),
    "LocalMHA": Spec(
        ["dim", "window_size"],
        {
            "dim_head": 64,
            "heads": 8,
            "causal": False,
            "prenorm": False,
            "exact_windowsize": True,
            "use_rotary_pos_emb": True,
        },
        local_mha_shapes,
        infer_local_mha,
        read_local_mha,
        router=None,
    ),
    "CoordinateDescentRouter": Spec(["dim"], LONE_ROUTER, router_shapes, infer_router, read_lone_router, router=None),
    "ConditionalRoutedFeedForward": Spec(
        ["dim", "num_heavy_tokens"], FEED_FORWARD, routed_feed_forward_shapes, infer_feed_forward, read_feed_forward
    ),
    "ConditionalRoutedAttention": Spec(
        ["dim", *COUNTS],
        {"has_light_attn": True, **HEAVY, **LIGHT, "rotary_emb": False},
        attention_shapes,
        infer_attention,
        read_attention,
    ),
    "ConditionalRoutedImageAttention": Spec(
        ["dim", *COUNTS],
        {**HEAVY, **LIGHT, "channel_first": False},
        image_shapes,
        lambda s: {**infer_heavy(s), **infer_light(s)},
        read_image,
    ),
    "ConditionalRoutedAutoregressiveAttention": Spec(
        ["dim", *COUNTS],
        {**HEAVY, **LIGHT, "heavy_window_size": None, "rotary_emb": False},
        attention_shapes,
        infer_autoregressive,
        read_autoregressive,
    ),
    "ConditionalRoutedCrossAttention": Spec(
        ["dim", "num_tokens_q", "num_tokens_kv"],
        {
            "dim_head": 64,
            "heads": 8,
            "router_straight_through": True,
            "kv_routing_tokens": 1,
            "multiply_keys_by_score": False,
            "use_null_q_tokens": True,
            "route_block_size": None,
        },
        cross_shapes,
        lambda s: infer_heavy(s, "heads", "dim_head", "kv_routing_tokens"),
        read_cross,
        router={name: value for name, value in ROUTER.items() if name != "route_block_size"},
    ),
    "ConditionalRoutedTransformerBlock": Spec(
        ["dim", *BLOCK_COUNTS],
        {**HEAVY, **LIGHT, **FEED_FORWARD, "rotary_emb": False},
        block_shapes,
        infer_block,
        read_block,
    ),
    "Encoder": Spec(
        ["dim", "depth", *BLOCK_COUNTS],
        {"num_tokens": 0, **HEAVY, **LIGHT, **FEED_FORWARD, "rotary_emb": False},
        encoder_shapes,
        infer_encoder,
        None,
    ),
    "ConditionalRoutedViT": Spec(
        [
            "dim",
            "image_size",
            "patch_size",
            "num_classes",
            "depth",
            "attn_num_heavy_tokens_q",
            "attn_num_heavy_tokens_kv",
            "attn_heavy_dim_head",
            "attn_heavy_heads",
            "attn_light_dim_head",
            "attn_light_heads",
            "attn_light_window_size",
            "ff_num_heavy_tokens",
            "ff_heavy_mult",
            "ff_light_mult",
        ],
        {"channels": 3, "router_straight_through": True, "attn_num_routed_kv": 1},
        vit_shapes,
        infer_vit,
        read_vit,
        router={**ROUTER, "eps": 1.0},
    ),
}


# ---- configurations --------------------------------------------------------------------------------------------------


def check_keys(what, given, known):
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ConversionError(f"{what} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def router_settings(what, kwargs, defaults):
    kwargs = {k: v for k, v in (kwargs or {}).items() if k not in ROUTER_WITHOUT_EFFECT}
    check_keys("router_kwargs of " + what, kwargs, defaults)
    for key, value in kwargs.items():
        check_type("router_kwargs of " + what, key, value, defaults[key])
    return {**defaults, **kwargs}


def split_product(names, product, args, defaults, notes):
    """Finds heads and dim_head from their product and what is given."""
    given = [args.get(name) for name in names]
    if given == [None, None]:
        given = [defaults[name] for name in names]
        if REQUIRED in given or given[0] * given[1] != product:
            raise ConversionError(
                f"{names[0]} * {names[1]} is {product} by the shape of to_qkv.weight: give one of the two"
            )
        notes.append(f"{names[0]} {given[0]} and {names[1]} {given[1]} are PyTorch's defaults")
    for i in (0, 1):
        if given[i] is None and given[1 - i] and product % given[1 - i] == 0:
            given[i] = product // given[1 - i]
    if None in given or given[0] * given[1] != product:
        raise ConversionError(
            f"{names[0]} is {given[0]} and {names[1]} {given[1]}, but by the shape of to_qkv.weight their product is "
            f"{product}"
        )
    return dict(zip(names, given))


def equal_arg(name, given, inferred, dim):
    if name.endswith("mult"):
        return int(dim * given) == int(dim * inferred)
    if name in ("rotary_emb", "use_rotary_pos_emb"):  # the weights show it by a buffer, which files may leave out
        return given or not inferred
    return given == inferred


def check_type(what, name, value, default):
    """Fails if value is no number where one is wanted, or no boolean. default is of the wanted type, or REQUIRED."""
    if isinstance(default, bool):
        right, want = isinstance(value, bool), "true or false"
    elif name in ("image_size", "patch_size"):
        right, want = (
            all(type(v) is int and v > 0 for v in pair(value)) and len(pair(value)) == 2,
            "a number or [height, width]",
        )
    else:
        right, want = type(value) in (int, float) or value is None and default is None, "a number"
        if name == "eps_init":
            right = right or value is None
    if not right:
        raise ConversionError(f"{what}: {name} is {value!r}, want {want}")


def configuration(name, args, shapes, notes):
    """The complete constructor arguments of module name: those given, those that follow from the shapes of its weights,
    and PyTorch's defaults for the rest. notes receives the defaults that nothing confirms."""
    spec, args = SPECS[name], {k: v for k, v in args.items() if k not in WITHOUT_EFFECT}
    if name == "ConditionalRoutedViT":
        eps = args.pop("default_coor_descent_eps", None)
        if eps is not None:
            args["router_kwargs"] = {"eps": eps, **(args.get("router_kwargs") or {})}
    check_keys(name, args, spec.args)
    for key, value in args.items():
        if key != "router_kwargs":
            check_type(name, key, value, spec.args[key])
    inferred = spec.infer(shapes)
    for names in [key for key in inferred if isinstance(key, tuple)]:
        args.update(split_product(names, inferred.pop(names), args, spec.args, notes))
    config = {}
    for key, default in spec.args.items():
        if key == "router_kwargs":
            config[key] = router_settings(name, args.get(key), spec.router)
        elif key in inferred and key in args:
            if not equal_arg(key, args[key], inferred[key], inferred.get("dim", 1)):
                raise ConversionError(f"{key} is {args[key]!r}, but the weights have {inferred[key]!r}")
            config[key] = args[key]
        elif key in inferred or key in args:
            config[key] = args[key] if key in args else inferred[key]
        elif default is REQUIRED:
            raise ConversionError(f"{name} needs the argument {key}, which neither the weights nor an object show")
        else:
            config[key] = default
            if key not in LIGHT or config.get("has_light_attn", True):
                notes.append(f"{key} is PyTorch's default, {default!r}")
    if "router_kwargs" in spec.args and "router_kwargs" not in args:
        notes.append(f"router_kwargs are PyTorch's defaults, {config['router_kwargs']}")
    return config


def check_weights(name, config, shapes):
    """Fails unless the weights are those of the configuration."""
    want = SPECS[name].shapes(config)
    problems = [f"{key} is missing, want shape {list(shape)}" for key, shape in want.items() if key not in shapes]
    problems += [f"{key} is not a weight of this module" for key in shapes if key not in want]
    problems += [
        f"{key} has shape {list(shapes[key])}, want {list(shape)}"
        for key, shape in want.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    if problems:
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ConversionError(f"{name}: " + "; ".join(problems[:4]) + more)
