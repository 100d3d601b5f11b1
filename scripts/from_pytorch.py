#!/usr/bin/env python3
"""Converts weights between the PyTorch package colt5-attention and this library.

  from_pytorch.py convert model.pt --module ConditionalRoutedAttention --args args.json --out attention
      writes attention.safetensors and attention.json. model.pt holds a state dict, also one inside a checkpoint or one
      saved through DistributedDataParallel; a .safetensors file works too. args.json holds the arguments that the
      module was constructed with; so may the command line: --args '{"num_heavy_tokens_q": 64, ..}'
  from_pytorch.py convert model.pt --prefix encoder.layers. --norm encoder.norm.gamma --args args.json --out encoder
      a ModuleList of transformer blocks inside a larger model, and the RMSNorm after it, become an Encoder
  from_pytorch.py back attention.safetensors attention.json --out model.pt
      writes a dict of state_dict, module and args, for load_state_dict
  from_pytorch.py case model.pt --module ConditionalRoutedAttention --args args.json --shape 2,512,64 --out case
      runs the PyTorch module on random numbers and writes case.safetensors for `vkbench verify`; --input x.pt instead
      of --shape takes a dict of the arguments, such as x and mask. Needs colt5_attention

As functions, with a module that is in memory (docs/pytorch.md has more):

  import from_pytorch
  from_pytorch.save("attention", model.attn)
  from_pytorch.save("encoder", model.layers, norm=model.norm)
  from_pytorch.write_case("case.safetensors", model.attn, x, mask=mask)

Needs PyTorch 1.13 or newer, and nothing else: safetensors files are read and written here.
"""

import argparse
import collections
import re
import sys

import torch

from pytorch_files import (
    DTYPES,
    FLOATS,
    is_state_dict,
    json_argument,
    read_safetensors,
    read_weights,
    write_json,
    write_safetensors,
    write_whole,
)
from pytorch_modules import SPECS, ConversionError, check_weights, configuration
from pytorch_shapes import under

# ---- from PyTorch ----------------------------------------------------------------------------------------------------

Converted = collections.namedtuple("Converted", "module config weights notes")
Converted.__doc__ = """A module in this library's form: the name of its class, its config.json, its weights by name, and
remarks for the user, such as defaults that nothing confirms."""

ROTARY = ("rotary_emb.inv_freq", "attn_fn.rel_pos.inv_freq")  # buffers with the frequencies of rotary embeddings


def convert(source, module=None, args=None, prefix="", norm=None, embed=None):
    """Converts a PyTorch module, a list of transformer blocks, or a state dict.

    module: name of the class; needed for a state dict whose names fit several classes.
    args: constructor arguments that neither an object nor the weights show: image_size of a ViT; for a state dict also
        num_heavy_tokens and all other settings.
    prefix: takes the part of a state dict whose names begin with it.
    norm: for a stack of blocks: the RMSNorm after it, as a module or as a name in the whole state dict; "ones" for one
        without weights; "none" if there is none: the result is then the weights of all blocks, for one
        ConditionalRoutedTransformerBlock each, to be loaded with LoadOptions.Prefix "0.", "1.", ..
    embed: for a stack of blocks: the nn.Embedding before it, as a module or as a name in the whole state dict.
    """
    args, notes = dict(args or {}), []
    prefix += "." if prefix and not prefix.endswith(".") else ""
    if isinstance(source, (list, tuple)):
        source = torch.nn.ModuleList(source)
    if isinstance(source, torch.nn.Module):
        source = unwrap(source)
        name, read = describe(submodule(source, prefix), module)
        args, state = merge(read, args), source.state_dict()
    else:
        if not is_state_dict(source) and not (module and source == {}):  # a router may have no weights
            raise ConversionError(
                f"the source is {type(source).__name__}, want a module, a list of blocks, or a state dict of tensors"
            )
        name, state = module, strip_wrappers(source, prefix, norm, embed)
    whole, state = state, select(state, prefix)
    stack = len(state) > 0 and all(re.match(r"\d+\.conditional_(attn|ff)\.", key) for key in state)
    if stack and norm == "none":
        return separate_blocks(state, args, notes)
    if stack:
        name, state = "Encoder", encoder_weights(state, whole, norm, embed)
    elif norm is not None or embed is not None:
        raise ConversionError(
            "norm and embed are for a stack of blocks, whose names begin with 0., 1., ..; "
            f"the first name here is {next(iter(state))}" + (f" after the prefix {prefix!r}" if prefix else "")
        )
    name = name or guess(state)
    if name not in SPECS:
        raise ConversionError(f"module is {name!r}, want one of {', '.join(SPECS)}")
    return finish(name, state, args, notes)


def finish(name, state, args, notes):
    shapes = {key: tuple(t.shape) for key, t in state.items()}
    config = configuration(name, args, shapes, notes)
    weights = {key: t for key, t in state.items() if not key.endswith(ROTARY)}
    check_weights(name, config, {key: shapes[key] for key in weights})
    for key, t in state.items():
        if key not in weights and not torch.allclose(
            t.detach().cpu().float(), rotary_frequencies(2 * t.numel()), rtol=1e-5
        ):
            raise ConversionError(f"{key} is not 10000^(-2d/D), the only rotary frequencies of this library")
    for key, t in weights.items():
        if t.dtype not in [DTYPES[d] for d in FLOATS]:
            raise ConversionError(f"{key} is {t.dtype}, want one of {', '.join(FLOATS)}")
        if not torch.isfinite(t).all():
            raise ConversionError(f"{key} has a NaN or an infinity")
    for settings in (config, config.get("router_kwargs", {})):
        if settings.get("route_block_size") is not None:
            notes.append(
                "route_block_size: the PyTorch package fails or drops the last tokens; this library does neither"
            )
    return Converted(name, own_config(name, config), weights, notes)


def own_config(name, config):
    """config.json of this library. PyTorch routes images inside each window."""
    config = dict(config)
    if name in ("ConditionalRoutedImageAttention", "ConditionalRoutedViT"):
        config["route_scope"] = "window"
    return config


def unwrap(module):
    """The module inside DataParallel, DistributedDataParallel and torch.compile."""
    while type(module).__name__ in ("DataParallel", "DistributedDataParallel", "OptimizedModule"):
        module = module.module if hasattr(module, "module") else module._orig_mod
    return module


def strip_wrappers(state, prefix, norm, embed):
    """A state dict without the prefixes of DataParallel, DistributedDataParallel and torch.compile."""
    state = dict(state)
    named = [prefix] + [n for n in (norm, embed) if isinstance(n, str)]
    for wrapper in ("module.", "_orig_mod.") * 2:
        if all(key.startswith(wrapper) for key in state) and not any(n.startswith(wrapper) for n in named):
            state = under(wrapper, state)
    return state


def select(state, prefix):
    part = under(prefix, state)
    if state and not part:
        raise ConversionError(
            f"no name begins with the prefix {prefix!r}; the names begin with "
            f"{', '.join(repr(k) for k in list(state)[:3])}"
        )
    return part


def merge(read, args):
    """The arguments of an object, and those that the user gives in addition."""
    for key, value in args.items():
        if key in read and read[key] != value:
            raise ConversionError(f"{key} is {value!r}, but the module has {read[key]!r}")
    return {**read, **args}


def is_stack(module):
    return (
        isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential))
        and len(module) > 0
        and all(type(unwrap(block)).__name__ == "ConditionalRoutedTransformerBlock" for block in module)
    )


def submodule(module, prefix):
    try:
        return unwrap(module.get_submodule(prefix.rstrip(".")))
    except AttributeError as e:
        raise ConversionError(f"the module has no part {prefix!r}: {e}") from None


def describe(source, name):
    """The class of an object and the arguments that its attributes show."""
    if is_stack(source):
        blocks = [SPECS["ConditionalRoutedTransformerBlock"].read(unwrap(block)) for block in source]
        for i, block in enumerate(blocks):
            for key, value in block.items():
                if value != blocks[0][key]:
                    raise ConversionError(
                        f"{key} of block {i} is {value!r} and of block 0 {blocks[0][key]!r}; the blocks of an "
                        "Encoder are equal: convert these one by one"
                    )
        return "Encoder", blocks[0]
    own = class_name(source)
    if (name or own) not in SPECS or SPECS[name or own].read is None:
        raise ConversionError(
            f"the module is a {own}, want one of {', '.join(n for n in SPECS if SPECS[n].read)}, or a ModuleList of "
            "ConditionalRoutedTransformerBlock; of a subclass, name the class that it extends"
        )
    return name or own, SPECS[name or own].read(source)


def class_name(module):
    """The name of a module's class. FeedForward is a function of the package, which returns a Sequential."""
    name = type(module).__name__
    if name == "Sequential" and [type(m).__name__ for m in module] == ["RMSNorm", "Linear", "GELU", "Linear"]:
        return "FeedForward"
    if name == "RMSNorm" and not hasattr(module, "gamma"):
        return "torch.nn.RMSNorm"  # it has an eps
    return name


def encoder_weights(state, whole, norm, embed):
    """Weights of blocks 0., 1., .. under the names of an Encoder."""
    weights = {"layers." + key: t for key, t in state.items()}
    count = 1 + max(int(key.split(".")[0]) for key in state)
    for i in range(count):
        if not under(f"{i}.", state):
            raise ConversionError(f"the stack has a block {count - 1}, but no block {i}")
    dim = next((t.shape[-1] for key, t in state.items() if key.endswith("routing_token")), 0)
    if norm == "ones":
        weights["norm.gamma"] = torch.ones(dim)
    elif norm is None:
        raise ConversionError(
            "an Encoder ends with an RMSNorm: say with norm which one the model has after its blocks (its name in the "
            'state dict or the module), "ones" for one without weights, or "none" to get the blocks without an Encoder'
        )
    else:
        weights["norm.gamma"] = part(whole, norm, "norm", "gamma")
    if embed is not None:
        weights["embed.weight"] = part(whole, embed, "embed", "weight")
    return weights


def part(whole, name, what, attribute):
    """A weight that is given by its name or its module."""
    if isinstance(name, torch.nn.Module):
        if not hasattr(name, attribute):
            raise ConversionError(
                f"{what} is a {type(name).__name__} without {attribute}, want a module with {attribute}"
            )
        return getattr(name, attribute).detach()
    if name not in whole:
        raise ConversionError(f"{what} is {name!r}, which is not in the state dict")
    return whole[name]


def separate_blocks(state, args, notes):
    """The weights of all blocks of a stack, under their own names."""
    first, weights = None, {}
    for i in sorted({int(key.split(".")[0]) for key in state}):
        block = finish("ConditionalRoutedTransformerBlock", under(f"{i}.", state), args, [] if first else notes)
        first = first or block
        if block.config != first.config:
            raise ConversionError(
                f"block {i} has another configuration than block 0: convert it alone, with the prefix '{i}.'"
            )
        weights.update({f"{i}.{key}": t for key, t in block.weights.items()})
    return first._replace(weights=weights)


def guess(state):
    """The class that the names of a state dict fit."""

    def has(*keys):
        return all(key in state for key in keys)

    if has("to_patch_embedding.1.weight", "linear_head.2.weight"):
        return "ConditionalRoutedViT"
    if has("conditional_attn.q_router.routing_token"):
        return "ConditionalRoutedTransformerBlock"
    if has("layers.0.conditional_attn.q_router.routing_token", "norm.gamma"):
        return "Encoder"
    if has("router.routing_token", "light_ff.0.gamma"):
        return "ConditionalRoutedFeedForward"
    if has("q_router.routing_token", "light_attn.norm.gamma"):
        return "ConditionalRoutedImageAttention"
    if set(state) in ({"routing_token"}, {"gamma"}):
        return "RMSNorm" if "gamma" in state else "CoordinateDescentRouter"
    if has("0.gamma", "1.weight", "1.bias", "3.weight", "3.bias"):
        return "FeedForward"
    if has("to_qkv.weight", "to_out.weight"):
        return "LocalMHA"
    if has("q_router.routing_token", "light_attn.norm.weight"):
        raise ConversionError(
            "the names fit ConditionalRoutedAttention and ConditionalRoutedAutoregressiveAttention: name the module"
        )
    if has("q_router.routing_token", "heavy_attn.to_q.weight"):
        raise ConversionError(
            "the names fit ConditionalRoutedCrossAttention and a ConditionalRoutedAttention without a light branch: "
            "name the module"
        )
    raise ConversionError(
        "the names fit no module of colt5-attention; the first are "
        f"{', '.join(list(state)[:3])}. For a part of a larger model give the prefix of its names"
    )


def save(path, source, **options):
    """Writes path.safetensors and path.json. Returns the result of convert, whose options it takes."""
    c = convert(source, **options)
    write_safetensors(path + ".safetensors", c.weights, {"module": c.module})
    write_json(path + ".json", c.config)
    return c


# ---- back to PyTorch -------------------------------------------------------------------------------------------------

OWN_ARGUMENTS = {"precision": ("f32", "float32"), "causal_query_routing": (False,), "route_scope": ("window",)}


def to_pytorch(weights, config, module=None):
    """The reverse of convert: a dict of state_dict, module (the class) and args (of its constructor).

    For an Encoder the state dict is that of a ModuleList of ConditionalRoutedTransformerBlock, args are those of one
    block, and norm, depth and embed are the rest. A setting that PyTorch does not have is an error.
    """
    config = dict(config)
    name = module or guess(weights)
    if name not in SPECS:
        raise ConversionError(f"module is {name!r}, want one of {', '.join(SPECS)}")
    for key, allowed in OWN_ARGUMENTS.items():
        default = "image" if key == "route_scope" and ("Image" in name or "ViT" in name) else allowed[0]
        if config.pop(key, default) not in allowed:
            raise ConversionError(
                f"PyTorch has no {key} but {allowed[0]!r}; with weights for another one it gives other numbers"
            )
    if config.get("router_kwargs"):
        config["router_kwargs"] = dict(config["router_kwargs"])
    for settings in (config, config.get("router_kwargs") or {}):
        settings.pop("scale_routing_tokens", None)  # of initial values only
        for key in ("eps_init", "route_block_size", "heavy_window_size"):  # this library writes 0 for None
            if settings.get(key) == 0:
                settings[key] = None
    if name == "ConditionalRoutedCrossAttention" and config.get("router_kwargs", {}).get("route_block_size", 0) is None:
        del config["router_kwargs"]["route_block_size"]
    blocks = name in ("ConditionalRoutedTransformerBlock", "Encoder")
    if blocks and config.pop("rotary_emb", False):
        raise ConversionError("PyTorch's ConditionalRoutedTransformerBlock has no rotary_emb")
    state = dict(weights)
    if config.get("rotary_emb") and "heavy_attn.null_kv" in state:
        state[ROTARY[0]] = rotary_frequencies(state["heavy_attn.null_kv"].shape[-1])
    if name == "LocalMHA" and config.get("use_rotary_pos_emb", True):
        state[ROTARY[1]] = rotary_frequencies(config.get("dim_head", 64))
    shapes = {key: tuple(t.shape) for key, t in state.items()}
    args = configuration(name, config, shapes, [])
    check_weights(name, args, {key: shapes[key] for key in weights})
    args = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    if blocks:
        args.pop("rotary_emb")
    if name == "ConditionalRoutedViT":
        args["flash_attn"] = False  # the default needs a function that PyTorch 2.11 no longer has
    if name != "Encoder":
        return {"state_dict": state, "module": name, "args": args}
    args.pop("num_tokens")
    return {
        "state_dict": under("layers.", state),
        "module": "ConditionalRoutedTransformerBlock",
        "depth": args.pop("depth"),
        "args": args,
        "norm": state["norm.gamma"],
        "embed": state.get("embed.weight"),
    }


def rotary_frequencies(dim_head):
    """The buffer of the package's RotaryEmbedding, by its formula."""
    return 1.0 / (10000 ** (torch.arange(0, dim_head, 2).float() / dim_head))


def write_case(path, module, *inputs, **options):
    """Writes a golden case of a module for `vkbench verify`. See pytorch_case.write_case."""
    import pytorch_case  # imports this file

    return pytorch_case.write_case(path, module, *inputs, **options)


# ---- command line ----------------------------------------------------------------------------------------------------


def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True, metavar="convert|back|case")
    modules = ", ".join(SPECS)

    def command(name, text):
        c = commands.add_parser(name, help=text, description=text)
        c.add_argument("weights", help=".pt or .safetensors file with a state dict")
        c.add_argument(
            "--module", help=f"class: {modules}; default: from the names of the weights, where they decide it"
        )
        c.add_argument("--out", required=True, help="path of the result; convert adds .safetensors and .json")
        return c

    c = command("convert", "PyTorch to this library")
    c.add_argument("--args", default="{}", help="constructor arguments: a JSON object, or a file with one")
    c.add_argument("--prefix", default="", help="take the part of the state dict whose names begin with this")
    c.add_argument("--key", help="entry of a checkpoint that is the state dict; a.b: b inside a")
    c.add_argument(
        "--norm", help='for a stack of blocks: name of the gamma of the RMSNorm after it, or "ones", or "none"'
    )
    c.add_argument("--embed", help="for a stack of blocks: name of the weight of the embedding before it")
    c.add_argument("--trust", action="store_true", help="unpickle a whole module, which runs code from the file")
    b = command("back", "this library to PyTorch")
    b.add_argument("config", help="config.json of the weights")
    g = command("case", "a golden case of the PyTorch module, for vkbench verify")
    g.add_argument("--args", default="{}", help="constructor arguments: a JSON object, or a file with one")
    g.add_argument("--prefix", default="", help="take the part of the state dict whose names begin with this")
    g.add_argument("--key", help="entry of a checkpoint that is the state dict; a.b: b inside a")
    source = g.add_mutually_exclusive_group(required=True)
    source.add_argument("--shape", help="shape of x, such as 2,512,64: random numbers")
    source.add_argument(
        "--input", help=".pt or .safetensors file with x, and mask, context, context_mask as the module takes them"
    )
    g.add_argument("--seed", type=int, default=0, help="of the random numbers; default 0")
    g.add_argument(
        "--ties",
        choices=["logit", "pytorch"],
        default="logit",
        help="which of several equal scores are selected; see docs/pytorch.md",
    )
    g.add_argument("--float64", action="store_true", help="compute in double precision")
    return p


def run(o):
    if o.command == "back":
        weights, metadata = read_safetensors(o.weights)
        result = to_pytorch(weights, json_argument(o.config), o.module or metadata.get("module"))
        write_whole(o.out, lambda f: torch.save(result, f))
        print(f"{o.out}: state dict of {result['module']} with {len(result['state_dict'])} tensors")
    elif o.command == "convert":
        source = read_weights(o.weights, o.key, o.trust)
        c = save(
            o.out, source, module=o.module, args=json_argument(o.args), prefix=o.prefix, norm=o.norm, embed=o.embed
        )
        print(f"{o.out}.safetensors, {o.out}.json: {c.module} with {len(c.weights)} tensors")
        for note in c.notes:
            print("note:", note)
    else:
        import pytorch_case

        pytorch_case.run(o, read_weights(o.weights, o.key), json_argument(o.args))


def main(arguments=None):
    try:
        run(parser().parse_args(arguments))
    except ConversionError as e:
        sys.exit(f"from_pytorch.py: {e}")
    except OSError as e:
        sys.exit(f"from_pytorch.py: {e.filename}: {e.strerror}")


if __name__ == "__main__":
    main()
