"""Records golden cases of PyTorch modules for `vkbench verify`: inputs, weights, outputs, and what routers selected.

The package colt5-attention has defects that change some rows (docs/pytorch.md). The recorded run is of the package's
own code with these removed, so that everything else can be compared; the report says which ones concern the case, and
how far the unchanged package is from the case.
"""

import copy
import json
import sys

import torch

import from_pytorch
from from_pytorch import ConversionError

ROUTER_CLASS = "CoordinateDescentRouter"
SEQUENCES = ("ConditionalRoutedAttention", "ConditionalRoutedTransformerBlock", "Encoder")


class Stack(torch.nn.Module):
    """Blocks, and the RMSNorm and embedding around them: what an Encoder computes."""

    def __init__(self, blocks, norm, embed=None):
        super().__init__()
        self.embed, self.layers, self.norm = embed, torch.nn.ModuleList(blocks), norm

    def forward(self, x, mask=None, **counts):
        if self.embed is not None:
            x = self.embed(x)
        for block in self.layers:
            x = block(x, mask=mask, **counts)
        return self.norm(x)


class RankedScores:
    """Scores of coordinate descent whose topk counts ties and selects by logits: of equal scores the one with the
    larger logit, and no masked entry before a valid one. With ties "pytorch" it selects what PyTorch's topk does."""

    def __init__(self, scores, logits, mask, report, ties):
        self.scores, self.logits, self.mask, self.report, self.ties = scores, logits, mask, report, ties

    def topk(self, k, dim=-1):
        logits = self.logits if self.mask is None else self.logits.masked_fill(~self.mask, -float("inf"))
        ranked = logits.sort(dim=-1, descending=True, stable=True)
        indices = ranked.indices[..., :k]
        self.report.count(self.scores, ranked.values, indices, k)
        if self.ties == "pytorch":
            return self.scores.topk(k, dim=dim)
        return self.scores.gather(-1, indices), indices


class RouterReport:
    """Counts of one router's rows."""

    def __init__(self):
        self.rows = self.ties = self.others = 0
        self.gap = float("inf")

    def count(self, scores, ranked, indices, k):
        """ranked: the logits in falling order, -inf where masked."""
        kept, rest = scores.topk(k, dim=-1), ranked[..., k:]
        cut = scores.gather(-1, indices)[..., -1]
        outside = scores.scatter(-1, indices, -1.0).amax(-1) if rest.shape[-1] else torch.full_like(cut, -1.0)
        self.rows += cut.numel()
        self.ties += int((outside >= cut).sum())
        self.others += int((kept.indices.sort(-1).values != indices.sort(-1).values).any(-1).sum())
        if rest.shape[-1]:
            gaps = (ranked[..., k - 1] - rest[..., 0])[torch.isfinite(rest[..., 0])]
            self.gap = min([self.gap, *gaps.flatten().tolist()])


def own_gather(x, indices):
    """The package's batched_gather, except that with several routes each batch item reads its own tokens."""
    batch = indices.shape[0]
    if x.shape[0] != batch:  # [B * R, ..], the same tokens for every route
        x = x.reshape(batch, -1, *x.shape[1:])[:, 0]
    return x[torch.arange(batch, device=x.device).reshape(-1, *[1] * (indices.ndim - 1)), indices]


class Recorder:
    """Records what the routers of a module compute while it is entered."""

    def __init__(self, module, ties):
        self.routers = {name: m for name, m in module.named_modules() if type(m).__name__ == ROUTER_CLASS}
        self.ties, self.routes, self.reports, self.undo = ties, {}, {}, []

    def __enter__(self):
        for name, router in self.routers.items():
            self.replace(vars(router), "coor_descent", self.descent(name, router.coor_descent))
            self.undo.append(router.register_forward_hook(self.keep(name)).remove)
            code = type(router).forward.__globals__
            if "batched_gather" in code and router.num_routing_tokens > 1:
                self.replace(code, "batched_gather", own_gather)
        return self

    def __exit__(self, *error):
        for undo in reversed(self.undo):
            undo()

    def replace(self, names, key, value):
        before = names[key]
        names[key] = value
        self.undo.append(lambda: names.__setitem__(key, before))

    def descent(self, name, original):
        report = self.reports.setdefault(name, RouterReport())

        def record(s, *, mask=None, **settings):
            scores = original(s, mask=mask, **settings)
            self.routes[name] = {"logits": s, "scores_all": scores}
            return RankedScores(scores, s, mask, report, self.ties)

        return record

    def keep(self, name):
        def hook(module, inputs, result):
            if result.indices is not None:
                self.routes[name].update(indices=result.indices, scores=result.scores)

        return hook


def write_case(
    path,
    module,
    x,
    mask=None,
    context=None,
    context_mask=None,
    routing_tokens=None,
    call=None,
    ties="logit",
    dtype=None,
    bound=None,
    norm=None,
    embed=None,
    **options,
):
    """Writes a golden case of a module and its inputs. Returns a report: a dict of text lines and numbers.

    module: a module of colt5-attention, or a list of transformer blocks with norm (and embed): modules, for an Encoder.
    call: arguments of the call that replace those of the module, such as {"num_heavy_tokens": 32}.
    ties: "logit": of tokens with equal scores those with the largest logits are selected, as this library does;
        "pytorch": whatever topk returns.
    dtype: torch.float64 computes the case in double precision; None: as the module is.
    bound: largest difference of outputs that vkbench verify accepts, relative to max(1, the largest output). None:
        1e-5, or with router_straight_through=False the bound of soft scores: see score_bound.
    options: of from_pytorch.convert: module (the class that a subclass extends), args, such as image_size.
    """
    if ties not in ("logit", "pytorch"):
        raise ConversionError(f'ties is {ties!r}, want "logit" or "pytorch"')
    module = from_pytorch.unwrap(module) if isinstance(module, torch.nn.Module) else module
    converted = from_pytorch.convert(module, norm=norm, embed=embed, **options)
    if converted.module == "Encoder" and not isinstance(module, Stack):
        module = Stack(list(module), norm_module(norm), embed)
    if mask is not None and converted.module in ("ConditionalRoutedImageAttention", "ConditionalRoutedViT"):
        raise ConversionError("a case of images takes no mask")
    module = copy.deepcopy(module).eval()
    if dtype is not None:
        module = module.to(dtype)
    sample = next(iter(module.parameters()), x)
    inputs = {"x": x, "mask": mask, "context": context, "context_mask": context_mask, "routing_tokens": routing_tokens}
    inputs = {name: place(t, sample) for name, t in inputs.items() if t is not None}
    call = dict(call or {})
    with torch.no_grad():
        plain, failure = attempt(converted.module, module, {**inputs, **call})
        y, recorder, remarks = record(converted, module, inputs, call, ties)
    return store(
        path,
        converted,
        inputs,
        call,
        y,
        recorder,
        {"plain": plain, "failure": failure, "remarks": remarks, "bound": bound},
    )


def norm_module(norm):
    if not isinstance(norm, torch.nn.Module):
        raise ConversionError("a case of a stack needs norm, the RMSNorm module after the blocks")
    return norm


def place(t, sample):
    """An input on the device of the weights, with their precision if it is floating point."""
    return t.detach().to(sample.device, sample.dtype if t.is_floating_point() else t.dtype)


def attempt(name, module, inputs):
    """The output of the unchanged package, or what it fails with."""
    try:
        result = call_module(module, inputs)
        y = output(name, result)
        return by_token(y, result.indices) if name == ROUTER_CLASS else y, None
    except Exception as e:  # whatever the package fails with
        return None, f"{type(e).__name__}: {str(e).splitlines()[0][:150] if str(e) else ''}"


def call_module(module, arguments):
    """x goes by position: a ViT calls it img."""
    return module(arguments["x"], **{name: value for name, value in arguments.items() if name != "x"})


def output(name, result):
    """What this library returns for a result of the package."""
    if name != ROUTER_CLASS:
        return result
    if result.indices is None:
        raise ConversionError("the sequence is no longer than num_tokens: nothing is routed, want a longer one")
    return result.routed_tokens * result.scores[..., None]


def local_window(c):
    """The window of a local attention in both directions, to a multiple of which the package pads; 0: there is none."""
    if c.module == "LocalMHA" and not c.config["causal"]:
        return c.config["window_size"]
    if c.module in SEQUENCES and c.config.get("has_light_attn", True):
        return c.config["light_window_size"] // 2
    return 0


def by_token(y, indices):
    """The rows of a router's result in the order of their tokens: the order of equal scores is arbitrary."""
    return y.gather(-2, indices.argsort(-1)[..., None].expand_as(y))


def record(c, module, inputs, call, ties):
    """Runs the package's code without the defects that docs/pytorch.md lists."""
    inputs, remarks = dict(inputs), []
    n, window = inputs["x"].shape[1], local_window(c)
    if window and n % window and "mask" not in inputs:
        inputs["mask"] = torch.ones(inputs["x"].shape[:2], dtype=torch.bool, device=inputs["x"].device)
        remarks.append(
            f"{n} tokens are no multiple of the windows of {window}, and the package attends to its own padding: "
            "run with a mask of ones"
        )
    code, name = type(module).forward.__globals__, "should_route_queries"
    define = c.module == "ConditionalRoutedCrossAttention" and name not in code
    if define:
        code[name] = n > call.get("num_tokens_q", c.config["num_tokens_q"])
        remarks.append(f"the package's cross-attention uses the undefined name {name}: defined it")
    if c.module == "ConditionalRoutedAutoregressiveAttention":
        size = c.config["heavy_window_size"] or c.config["light_window_size"]
        if n <= size:
            raise ConversionError(f"x has {n} tokens, want more than heavy_window_size, {size}: fewer are not routed")
    recorder = Recorder(module, ties)
    try:
        with recorder:
            y = output(c.module, call_module(module, {**inputs, **call}))
    finally:
        if define:
            del code[name]
    if any(r.num_routing_tokens > 1 for r in recorder.routers.values()):
        remarks.append("with several routes the package mixes the items of a batch: each reads its own tokens here")
    return y, recorder, remarks


def valid_rows(y, inputs):
    """The rows of y that are no padding."""
    return y[inputs["mask"].bool()] if "mask" in inputs and y.shape[:2] == inputs["mask"].shape else y


def score_bound(logits, eps):
    """How far soft scores may differ because logits are rounded to float32: coordinate descent divides by eps."""
    return min(1.0, max(1e-4, 8 * 2**-24 * float(logits.abs().max()) / eps))


def bounds(c, recorder, bound):
    """The bounds of a case in its metadata. Without straight-through, outputs contain soft scores."""
    settings = c.config.get("router_kwargs", c.config)
    logits = [route["logits"] for route in recorder.routes.values() if "indices" in route]
    scores = max([score_bound(t, settings["eps"]) for t in logits], default=1e-4)
    straight = c.config.get("router_straight_through", c.config.get("straight_through", True))
    return {"bound": repr(bound or (1e-5 if straight else scores)), "score_bound": repr(scores)}


def store(path, c, inputs, call, y, recorder, found):
    metadata = {"module": c.module, "config": json.dumps(c.config), "call": json.dumps(call)}
    metadata.update(bounds(c, recorder, found["bound"]))
    if "mask" in inputs and c.module != ROUTER_CLASS:
        metadata["rows"] = "valid"
        found["remarks"].append("rows of padding are not compared")
    tensors = {"param." + name: t.float() for name, t in c.weights.items()}
    for name, t in inputs.items():
        tensors["in." + name] = (
            t.to(torch.uint8) if name.endswith("mask") else t.float() if t.is_floating_point() else t.int()
        )
    tensors["out.y"] = y.float()
    lines = []
    for name, route in recorder.routes.items():
        if "indices" not in route:
            continue
        for part, t in route.items():
            tensors[f"route.{name}.{part}"] = t.int() if part == "indices" else t.float()
        r = recorder.reports[name]
        line = f"router {name or '(itself)'}: {r.rows} rows, closest cut between logits {r.gap:.2g}"
        if r.ties:
            line += f"; in {r.ties} the cut is between equal scores, and in {r.others} "
            line += "the unchanged package selects other tokens"
        lines.append(line)
    if not all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point()):
        raise ConversionError("the inputs, the outputs or the routing have a NaN or an infinity")
    from_pytorch.write_safetensors(path, tensors, metadata)
    difference = None
    if found["plain"] is None:
        lines.append(f"the unchanged package fails: {found['failure']}")
    else:
        y = by_token(y, recorder.routes[""]["indices"]) if c.module == ROUTER_CLASS else valid_rows(y, inputs)
        plain = found["plain"] if c.module == ROUTER_CLASS else valid_rows(found["plain"], inputs)
        difference = float((plain - y).abs().max())
        lines.append(f"largest difference between the unchanged package and this case: {difference:.3g}")
    return {
        "module": c.module,
        "lines": found["remarks"] + lines,
        "difference": difference,
        "failure": found["failure"],
        "gap": min([r.gap for r in recorder.reports.values()], default=float("inf")),
        "ties": sum(r.ties for r in recorder.reports.values()),
        "others": sum(r.others for r in recorder.reports.values()),
    }


def write_function_case(path, function, x, mask=None, **settings):
    """Writes a golden case of the functions coor_descent or topk of colt5-attention, with their settings."""
    result = function(x, mask=mask, **settings)
    settings = {name: value for name, value in settings.items() if value is not None and name != "fused"}
    module, name = ("CoordinateDescent", "s") if isinstance(result, torch.Tensor) else ("TopK", "x")
    outputs = (
        {"y": result} if module == "CoordinateDescent" else {k: t for k, t in result._asdict().items() if t is not None}
    )
    tensors = {"in." + name: x.float()}
    if mask is not None:
        tensors["in.mask"] = mask.to(torch.uint8)
    for key, t in outputs.items():
        tensors["out." + key] = t.int() if key == "indices" else t.float()
    metadata = {"module": module, "config": json.dumps(settings), "call": "{}"}
    metadata["bound"] = repr(score_bound(x, settings.get("eps", 0.1)))
    from_pytorch.write_safetensors(path, tensors, metadata)
    return {
        "module": module,
        "lines": [],
        "difference": 0.0,
        "failure": None,
        "gap": float("inf"),
        "ties": 0,
        "others": 0,
    }


# ---- command line ----------------------------------------------------------------------------------------------------


def build(name, args, state):
    """The module of the package, with the weights of a state dict."""
    try:
        import local_attention
        from colt5_attention import transformer_block, vit
    except ImportError as e:
        raise ConversionError(f"a case needs the package colt5-attention: {e}") from None
    package = vit if name == "ConditionalRoutedViT" else local_attention if name == "LocalMHA" else transformer_block
    try:
        module = getattr(package, name)(**args)
        module.load_state_dict(state)
    except (AttributeError, TypeError, RuntimeError, AssertionError) as e:
        raise ConversionError(f"{name}: {str(e).strip()[:400]}") from None
    return module


def run(o, source, args):
    """from_pytorch.py case."""
    if isinstance(source, torch.nn.Module):
        raise ConversionError(f"{o.weights} holds a module, want a state dict")
    c = from_pytorch.convert(source, module=o.module, args=args, prefix=o.prefix)
    if c.module == "Encoder":
        raise ConversionError(
            "a case of an Encoder needs the modules: call from_pytorch.write_case with the blocks and norm"
        )
    back = from_pytorch.to_pytorch(c.weights, c.config, c.module)
    module = build(c.module, back["args"], back["state_dict"])
    own = {"args": {"image_size": c.config["image_size"]}} if "image_size" in c.config else {}
    report = write_case(
        o.out if o.out.endswith(".safetensors") else o.out + ".safetensors",
        module,
        **read_inputs(o),
        ties=o.ties,
        dtype=torch.float64 if o.float64 else None,
        **own,
    )
    for line in report["lines"]:
        print(line, file=sys.stdout)


def read_inputs(o):
    if o.input:
        inputs = dict(from_pytorch.read_weights(o.input))
        known = ("x", "mask", "context", "context_mask", "routing_tokens")
        for name in inputs:
            if name not in known:
                raise ConversionError(f"{o.input} has {name!r}, want {', '.join(known)}")
        if "x" not in inputs:
            raise ConversionError(f"{o.input} has no x")
        return inputs
    try:
        shape = [int(n) for n in o.shape.split(",")]
    except ValueError:
        raise ConversionError(f"--shape is {o.shape!r}, want numbers with commas") from None
    return {"x": torch.randn(shape, generator=torch.Generator().manual_seed(o.seed))}
