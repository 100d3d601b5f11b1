"""Shapes of the weights of colt5-attention's modules, and the constructor arguments that follow from them."""


def add_prefix(prefix, values):
    return {prefix + name: value for name, value in values.items()}


def under(prefix, values):
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}


def feed_forward_shapes(dim, mult):
    hidden = int(dim * mult)
    return {
        "0.gamma": (dim,),
        "1.weight": (hidden, dim),
        "1.bias": (hidden,),
        "3.weight": (dim, hidden),
        "3.bias": (dim,),
    }


def projections(dim, inner):
    return {"to_qkv.weight": (3 * inner, dim), "to_out.weight": (dim, inner)}


def layer_norm(name, dim):
    return {name + ".weight": (dim,), name + ".bias": (dim,)}


def heavy_shapes(dim, heads, dim_head):
    inner = heads * dim_head
    return add_prefix(
        "heavy_attn.",
        {
            "norm.gamma": (dim,),
            "null_kv": (2, heads, dim_head),
            "to_q.weight": (inner, dim),
            "to_kv.weight": (2 * inner, dim),
            "to_out.weight": (dim, inner),
        },
    )


def routers_shapes(c, routes):
    shapes = {"q_router.routing_token": (1, c["dim"]), "kv_router.routing_token": (routes, c["dim"])}
    if c.get("use_null_q_tokens", True):
        shapes["null_q_token"] = (c["dim"],)
    return shapes


def routed_feed_forward_shapes(c):
    return {
        "router.routing_token": (1, c["dim"]),
        **add_prefix("light_ff.", feed_forward_shapes(c["dim"], c["light_ff_mult"])),
        **add_prefix("heavy_ff.", feed_forward_shapes(c["dim"], c["heavy_ff_mult"])),
    }


def image_shapes(c):
    light = {"norm.gamma": (c["dim"],), **projections(c["dim"], c["light_heads"] * c["light_dim_head"])}
    return {
        **routers_shapes(c, c["num_routed_kv"]),
        **heavy_shapes(c["dim"], c["heavy_heads"], c["heavy_dim_head"]),
        **add_prefix("light_attn.", light),
    }


def attention_shapes(c):
    shapes = {**routers_shapes(c, c["num_routed_kv"]), **heavy_shapes(c["dim"], c["heavy_heads"], c["heavy_dim_head"])}
    if c.get("has_light_attn", True):
        light = {**layer_norm("norm", c["dim"]), **projections(c["dim"], c["light_heads"] * c["light_dim_head"])}
        shapes.update(add_prefix("light_attn.", light))
    return shapes


def cross_shapes(c):
    return {**routers_shapes(c, c["kv_routing_tokens"]), **heavy_shapes(c["dim"], c["heads"], c["dim_head"])}


def block_shapes(c):
    return {
        **add_prefix("conditional_attn.", attention_shapes(c)),
        **add_prefix("conditional_ff.", routed_feed_forward_shapes(c)),
    }


def encoder_shapes(c):
    shapes = {"norm.gamma": (c["dim"],)}
    if c["num_tokens"]:
        shapes["embed.weight"] = (c["num_tokens"], c["dim"])
    for i in range(c["depth"]):
        shapes.update(add_prefix(f"layers.{i}.", block_shapes(c)))
    return shapes


def pair(size):
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


VIT_ATTENTION = (
    "num_heavy_tokens_q",
    "num_heavy_tokens_kv",
    "num_routed_kv",
    "heavy_dim_head",
    "heavy_heads",
    "light_dim_head",
    "light_heads",
    "light_window_size",
)
VIT_FEED_FORWARD = {
    "num_heavy_tokens": "ff_num_heavy_tokens",
    "light_ff_mult": "ff_light_mult",
    "heavy_ff_mult": "ff_heavy_mult",
}


def vit_shapes(c):
    dim, patch = c["dim"], c["channels"] * pair(c["patch_size"])[0] * pair(c["patch_size"])[1]
    shapes = {
        **layer_norm("to_patch_embedding.1", patch),
        "to_patch_embedding.2.weight": (dim, patch),
        "to_patch_embedding.2.bias": (dim,),
        **layer_norm("to_patch_embedding.3", dim),
        **layer_norm("linear_head.1", dim),
        "linear_head.2.weight": (c["num_classes"], dim),
        "linear_head.2.bias": (c["num_classes"],),
    }
    attention = {"dim": dim, **{name: c["attn_" + name] for name in VIT_ATTENTION}}
    feed_forward = {"dim": dim, **{name: c[own] for name, own in VIT_FEED_FORWARD.items()}}
    for i in range(c["depth"]):
        shapes.update(add_prefix(f"transformer.layers.{i}.0.", image_shapes(attention)))
        shapes.update(add_prefix(f"transformer.layers.{i}.1.", routed_feed_forward_shapes(feed_forward)))
    return shapes


def router_shapes(c):
    return {} if c["learned_routing_tokens"] else {"routing_token": (c["num_routing_tokens"], c["dim"])}


def local_mha_shapes(c):
    return {
        **(layer_norm("norm", c["dim"]) if c["prenorm"] else {}),
        **projections(c["dim"], c["heads"] * c["dim_head"]),
    }


# ---- arguments that follow from shapes. s has the shapes of a state dict; an absent name gives no argument -----------


def hidden_mult(dim, hidden):
    """The multiplier of a hidden size: int(dim * result) is hidden."""
    return next(m for m in (hidden / dim, (hidden + 0.5) / dim) if int(dim * m) == hidden)


def infer_mult(s, prefix, arg):
    shape = s.get(prefix + "1.weight", ())
    return {arg: hidden_mult(shape[1], shape[0])} if len(shape) == 2 else {}


def infer_size(s, name, rank, at, arg):
    shape = s.get(name, ())
    return {arg: shape[at]} if len(shape) == rank else {}


def infer_feed_forward(s):
    return {
        **infer_size(s, "light_ff.0.gamma", 1, 0, "dim"),
        **infer_mult(s, "light_ff.", "light_ff_mult"),
        **infer_mult(s, "heavy_ff.", "heavy_ff_mult"),
    }


def infer_heavy(s, heads="heavy_heads", dim_head="heavy_dim_head", routes="num_routed_kv"):
    return {
        **infer_size(s, "heavy_attn.norm.gamma", 1, 0, "dim"),
        **infer_size(s, "heavy_attn.null_kv", 3, 1, heads),
        **infer_size(s, "heavy_attn.null_kv", 3, 2, dim_head),
        **infer_size(s, "kv_router.routing_token", 2, 0, routes),
        "use_null_q_tokens": "null_q_token" in s,
    }


def infer_light(s, heads="light_heads", dim_head="light_dim_head", name="light_attn.to_qkv.weight"):
    """Only the product of heads and dim_head shows: its key is the pair of names. See split_product."""
    shape = s.get(name, ())
    return {(heads, dim_head): shape[0] // 3} if len(shape) == 2 else {}


def infer_attention(s):
    return {
        **infer_heavy(s),
        **infer_light(s),
        "has_light_attn": "light_attn.to_qkv.weight" in s,
        "rotary_emb": "rotary_emb.inv_freq" in s,
    }


def infer_autoregressive(s):
    return {**infer_heavy(s), **infer_light(s), "rotary_emb": "rotary_emb.inv_freq" in s}


def infer_block(s):
    attention = under("conditional_attn.", s)
    return {
        **infer_heavy(attention),
        **infer_light(attention),
        **infer_feed_forward(under("conditional_ff.", s)),
        "rotary_emb": "conditional_attn.rotary_emb.inv_freq" in s,
    }


def layer_count(s, prefix):
    indices = {name[len(prefix) :].split(".")[0] for name in s if name.startswith(prefix)}
    return 1 + max((int(i) for i in indices if i.isdigit()), default=-1)


def infer_encoder(s):
    return {
        **infer_block(under("layers.0.", s)),
        "depth": layer_count(s, "layers."),
        "num_tokens": s.get("embed.weight", (0,))[0],
    }


def infer_vit(s):
    attention, feed_forward = under("transformer.layers.0.0.", s), infer_feed_forward(
        under("transformer.layers.0.1.", s)
    )
    return {
        **{"attn_" + name: value for name, value in infer_heavy(attention).items() if name in VIT_ATTENTION},
        **infer_light(attention, "attn_light_heads", "attn_light_dim_head"),
        **{own: feed_forward[name] for name, own in VIT_FEED_FORWARD.items() if name in feed_forward},
        **infer_size(s, "linear_head.2.weight", 2, 0, "num_classes"),
        **infer_size(s, "linear_head.2.weight", 2, 1, "dim"),
        "depth": layer_count(s, "transformer.layers."),
    }


def infer_router(s):
    return {
        **infer_size(s, "routing_token", 2, 1, "dim"),
        **infer_size(s, "routing_token", 2, 0, "num_routing_tokens"),
        "learned_routing_tokens": "routing_token" not in s,
    }


def infer_local_mha(s):
    return {
        **infer_size(s, "to_out.weight", 2, 0, "dim"),
        **infer_light(s, "heads", "dim_head", "to_qkv.weight"),
        "prenorm": "norm.weight" in s,
        "use_rotary_pos_emb": "attn_fn.rel_pos.inv_freq" in s,
    }
