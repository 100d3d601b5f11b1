#!/usr/bin/env python3
"""Tests of from_pytorch.py. Run: python3 scripts/from_pytorch_test.py

They need torch. Those that need the package colt5-attention on PYTHONPATH are skipped without it; the others use the
files that it made, in colt5/testdata/pytorch.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import types
import unittest

import torch

import from_pytorch
from from_pytorch import ConversionError
from pytorch_modules import SPECS
from pytorch_shapes import hidden_mult

sys.modules.setdefault("hyper_connections", types.SimpleNamespace(get_init_and_expand_reduce_stream_functions=None))
try:
    import colt5_attention
    from colt5_attention.transformer_block import FeedForward, RMSNorm
except ImportError as error:
    colt5_attention, missing = None, str(error)
needs_package = unittest.skipIf(colt5_attention is None, "the package colt5-attention is not installed")

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "colt5", "testdata", "pytorch")
CASES = sorted(name[:-5] for name in os.listdir(DATA) if name.endswith(".json"))


def load(name):
    """A committed model: weights, config and module."""
    weights, metadata = from_pytorch.read_safetensors(os.path.join(DATA, name + ".safetensors"))
    with open(os.path.join(DATA, name + ".json"), encoding="utf-8") as f:
        return weights, json.load(f), metadata["module"]


def arguments(name):
    """The constructor arguments of a committed model."""
    back = from_pytorch.to_pytorch(*load(name))
    return back["args"]


class Files(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)


class SafetensorsTest(Files):
    def test_round_trip(self):
        tensors = {name: torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in from_pytorch.DTYPES.items()}
        tensors["transposed"], tensors["empty"], tensors["scalar"] = (
            torch.randn(3, 4).t(),
            torch.ones(0, 2),
            torch.tensor(5.0),
        )
        from_pytorch.write_safetensors(self.path("a"), tensors, {"module": "M"})
        read, metadata = from_pytorch.read_safetensors(self.path("a"))
        self.assertEqual(metadata, {"module": "M"})
        self.assertEqual(set(read), set(tensors))
        for name, t in tensors.items():
            self.assertEqual((read[name].dtype, read[name].shape), (t.dtype, t.shape), name)
            self.assertTrue(torch.equal(read[name], t), name)
        self.assertEqual(os.listdir(self.folder.name), ["a"], "no temporary file is left")

    def test_failure_leaves_the_old_file(self):
        from_pytorch.write_safetensors(self.path("a"), {"x": torch.ones(2)}, {})

        def fail(_):
            raise OSError("disk full")

        with self.assertRaisesRegex(OSError, "disk full"):
            from_pytorch.write_whole(self.path("a"), fail)
        self.assertTrue(torch.equal(from_pytorch.read_safetensors(self.path("a"))[0]["x"], torch.ones(2)))
        self.assertEqual(os.listdir(self.folder.name), ["a"])

    def test_damaged(self):
        from_pytorch.write_safetensors(self.path("a"), {"x": torch.ones(20)}, {})
        with open(self.path("a"), "rb") as f:
            whole = f.read()
        for cut in (0, 4, 30, len(whole) - 1):
            with open(self.path("b"), "wb") as f:
                f.write(whole[:cut])
            with self.assertRaisesRegex(ConversionError, "no safetensors file, or a damaged one"):
                from_pytorch.read_safetensors(self.path("b"))


class StateDictTest(Files):
    def test_every_model(self):
        """A state dict and the arguments give the committed weights and config, and they give the state dict again."""
        self.assertGreater(len(CASES), 15)
        for name in CASES:
            with self.subTest(name):
                weights, config, module = load(name)
                back = from_pytorch.to_pytorch(weights, config, module)
                args, norm, state = dict(back["args"]), None, dict(back["state_dict"])
                if module == "Encoder":
                    state = {"layers." + key: t for key, t in state.items()}
                    state["norm.gamma"], norm = back["norm"], "norm.gamma"
                    if back["embed"] is not None:
                        state["embed.weight"] = back["embed"]
                c = from_pytorch.convert(state, module=module, args=args)
                self.assertEqual(c.config, config)
                self.assertEqual(set(c.weights), set(weights))
                for key, t in c.weights.items():
                    self.assertTrue(torch.equal(t, weights[key]), key)
                if norm:
                    embed = "embed.weight" if back["embed"] is not None else None
                    stack = from_pytorch.convert(state, args=args, prefix="layers.", norm=norm, embed=embed)
                    self.assertEqual(
                        (stack.module, stack.config, set(stack.weights)), ("Encoder", config, set(weights))
                    )

    def test_wrappers(self):
        weights, config, module = load("attention_routes")
        args = arguments("attention_routes")
        for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
            state = {prefix + key: t for key, t in weights.items()}
            state[prefix + "rotary_emb.inv_freq"] = from_pytorch.rotary_frequencies(4)
            c = from_pytorch.convert(state, module=module, args=args)
            self.assertEqual((c.config, set(c.weights)), (config, set(weights)))

    def test_files(self):
        weights, config, module = load("feedforward")
        args = arguments("feedforward")
        for content, key in (
            (weights, None),
            ({"epoch": 3, "model": weights}, None),
            ({"a": weights, "b": {"c": weights}}, "b.c"),
            ({"state_dict": weights, "optimizer": {"state": {}}}, None),
        ):
            torch.save(content, self.path("a.pt"))
            c = from_pytorch.save(
                self.path("out"), from_pytorch.read_weights(self.path("a.pt"), key), module=module, args=args
            )
            self.assertEqual(c.config, config)
        for content, message in (
            ({"a": weights, "b": weights}, "2 state dicts, want one"),
            ({"epoch": 3}, "0 state dicts"),
            (3, "holds a int"),
        ):
            torch.save(content, self.path("a.pt"))
            with self.assertRaisesRegex(ConversionError, message):
                from_pytorch.read_weights(self.path("a.pt"))
        torch.save(torch.nn.Linear(2, 3), self.path("a.pt"))
        with self.assertRaisesRegex(ConversionError, "--trust"):
            from_pytorch.read_weights(self.path("a.pt"))
        self.assertIsInstance(from_pytorch.read_weights(self.path("a.pt"), trust=True), torch.nn.Linear)
        with self.assertRaisesRegex(ConversionError, "No such file"):
            from_pytorch.read_weights(self.path("none.pt"))

    def test_defaults_are_notes(self):
        weights, _, module = load("feedforward")
        c = from_pytorch.convert(weights, module=module, args={"num_heavy_tokens": 3})
        self.assertEqual(c.config["heavy_ff_mult"], 4.0, "from the shapes")
        self.assertTrue(any("router_straight_through" in note for note in c.notes))
        self.assertTrue(any("router_kwargs" in note for note in c.notes))

    def test_arguments_without_effect(self):
        weights, config, module = load("vit")
        args = dict(arguments("vit"), flash_attn=True, router_use_triton=True, default_coor_descent_eps=0.5)
        args["router_kwargs"] = {"use_triton": True, "triton_checkpoint_segments": 4}
        c = from_pytorch.convert(weights, module=module, args=args)
        self.assertEqual(c.config, {**config, "router_kwargs": {**config["router_kwargs"], "eps": 0.5}})

    def test_errors(self):
        weights, _, module = load("attention")
        good = arguments("attention")
        stack = {f"{i}.{key}": t for i in (0, 1) for key, t in load("block")[0].items()}
        block = arguments("block")
        one_changed = copy.copy(weights)
        one_changed["null_q_token"] = torch.full((8,), float("nan"))
        for message, state, options in (
            ("fit ConditionalRoutedAttention and ConditionalRoutedAutoregressiveAttention", weights, {"args": good}),
            ("module is 'Attention', want one of", weights, {"module": "Attention", "args": good}),
            ("needs the argument num_heavy_tokens_q", weights, {"module": module, "args": {"light_heads": 2}}),
            (
                "give one of the two",
                weights,
                {"module": module, "args": {"num_heavy_tokens_q": 3, "num_heavy_tokens_kv": 3}},
            ),
            (
                "no argument 'num_heavy_token_q'; did you mean 'num_heavy_tokens_q'",
                weights,
                {"module": module, "args": {"num_heavy_token_q": 1}},
            ),
            ("no argument 'epsilon'", weights, {"module": module, "args": {**good, "router_kwargs": {"epsilon": 1}}}),
            ("eps is 'x', want a number", weights, {"module": module, "args": {**good, "router_kwargs": {"eps": "x"}}}),
            (
                "num_heavy_tokens_q is '3', want a number",
                weights,
                {"module": module, "args": {**good, "num_heavy_tokens_q": "3"}},
            ),
            ("rotary_emb is 1, want true or false", weights, {"module": module, "args": {**good, "rotary_emb": 1}}),
            ("dim is 9, but the weights have 8", weights, {"module": module, "args": {**good, "dim": 9}}),
            ("light_heads is 3 and light_dim_head 4", weights, {"module": module, "args": {**good, "light_heads": 3}}),
            ("null_q_token has a NaN", one_changed, {"module": module, "args": good}),
            (
                "q_router.routing_token is missing",
                {k: t for k, t in weights.items() if "q_router" not in k},
                {"module": module, "args": good},
            ),
            (
                "extra is not a weight of this module",
                {**weights, "extra": torch.ones(1)},
                {"module": module, "args": good},
            ),
            (
                "10000",
                {**weights, "rotary_emb.inv_freq": torch.ones(2)},
                {"module": module, "args": {**good, "rotary_emb": True}},
            ),
            ("begins with the prefix 'x.'", weights, {"module": module, "args": good, "prefix": "x."}),
            ("norm and embed are for a stack", weights, {"module": module, "args": good, "norm": "ones"}),
            ("an Encoder ends with an RMSNorm", stack, {"args": block}),
            ("norm is 'nothing', which is not in the state dict", stack, {"args": block, "norm": "nothing"}),
            ("no block 0", {k: t for k, t in stack.items() if k.startswith("1.")}, {"args": block, "norm": "ones"}),
            ("fit no module of colt5-attention", {"fc.weight": torch.ones(2)}, {}),
            ("want a module, a list of blocks, or a state dict", {"fc.weight": 3}, {}),
        ):
            with self.subTest(message), self.assertRaisesRegex(ConversionError, message):
                from_pytorch.convert(state, **options)

    def test_separate_blocks(self):
        weights, config, _ = load("block")
        stack = {f"{i}.{key}": t for i in (0, 1) for key, t in weights.items()}
        c = from_pytorch.convert(stack, args=arguments("block"), norm="none")
        self.assertEqual(
            (c.module, c.config, set(c.weights)), ("ConditionalRoutedTransformerBlock", config, set(stack))
        )
        ones = from_pytorch.convert(stack, args=arguments("block"), norm="ones")
        self.assertEqual((ones.module, ones.config["depth"]), ("Encoder", 2))
        self.assertTrue(torch.equal(ones.weights["norm.gamma"], torch.ones(8)))

    def test_back_errors(self):
        for name, change, message in (
            ("image", {"route_scope": "image"}, "no route_scope but 'window'"),
            ("autoregressive", {"causal_query_routing": True}, "causal_query_routing"),
            ("block", {"rotary_emb": True}, "no rotary_emb"),
            ("block", {"precision": "f16"}, "no precision"),
            ("attention", {"heavy_heads": 3}, "heavy_heads is 3"),
        ):
            weights, config, module = load(name)
            with self.subTest(message), self.assertRaisesRegex(ConversionError, message):
                from_pytorch.to_pytorch(weights, {**config, **change}, module)
        weights, config, module = load("image")
        del config["route_scope"]  # this library's default is the image
        with self.assertRaisesRegex(ConversionError, "route_scope"):
            from_pytorch.to_pytorch(weights, config, module)

    def test_back_zeros(self):
        """What this library writes in place of null, and keys that PyTorch does not have."""
        weights, config, module = load("autoregressive")
        own = {
            **config,
            "heavy_window_size": 0,
            "precision": "f32",
            "causal_query_routing": False,
            "router_kwargs": {
                **config["router_kwargs"],
                "eps_init": 0,
                "route_block_size": 0,
                "scale_routing_tokens": True,
            },
        }
        args = from_pytorch.to_pytorch(weights, own, module)["args"]
        self.assertEqual(
            (args["heavy_window_size"], args["router_kwargs"]["eps_init"], args["router_kwargs"]["route_block_size"]),
            (None, None, None),
        )
        weights, config, module = load("cross")
        own = {**config, "router_kwargs": {**config["router_kwargs"], "route_block_size": 0}}
        self.assertNotIn("route_block_size", from_pytorch.to_pytorch(weights, own, module)["args"]["router_kwargs"])

    def test_hidden_mult(self):
        for dim in range(1, 300):
            for hidden in range(1, 300):
                self.assertEqual(int(dim * hidden_mult(dim, hidden)), hidden)

    def test_command_line(self):
        weights, config, module = load("attention")
        torch.save({"module." + key: t for key, t in weights.items()}, self.path("a.pt"))
        with open(self.path("args.json"), "w", encoding="utf-8") as f:
            json.dump(arguments("attention"), f)

        def run(*args):
            return subprocess.run(
                [sys.executable, os.path.join(HERE, "from_pytorch.py"), *args],
                capture_output=True,
                text=True,
                check=False,
            )

        p = run(
            "convert", self.path("a.pt"), "--module", module, "--args", self.path("args.json"), "--out", self.path("b")
        )
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        with open(self.path("b.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), config)
        p = run("back", self.path("b.safetensors"), self.path("b.json"), "--out", self.path("c.pt"))
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        back = torch.load(self.path("c.pt"))
        self.assertEqual(back["module"], module)
        for key, t in weights.items():
            self.assertTrue(torch.equal(back["state_dict"][key], t), key)
        p = run("convert", self.path("a.pt"), "--module", module, "--args", "{", "--out", self.path("b"))
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr, "^from_pytorch.py: this is no JSON")
        self.assertNotIn("Traceback", p.stderr)


@needs_package
class PackageTest(Files):
    """With the real package."""

    def options(self):
        return dict(light_dim_head=4, light_heads=2, light_window_size=8, heavy_dim_head=4, heavy_heads=2)

    def block(self, **options):
        return colt5_attention.ConditionalRoutedTransformerBlock(
            8, num_heavy_attn_tokens_q=3, num_heavy_attn_tokens_kv=3, num_heavy_ff_tokens=3, **self.options(), **options
        )

    def test_constructors(self):
        """Every class, and every committed config, can be built by the package and takes its weights back."""
        from local_attention import LocalMHA

        classes = {"LocalMHA": LocalMHA, "FeedForward": FeedForward, "RMSNorm": RMSNorm}
        seen = set()
        for name in CASES:
            with self.subTest(name):
                back = from_pytorch.to_pytorch(*load(name))
                make = classes.get(back["module"]) or getattr(colt5_attention, back["module"])
                module = make(**back["args"])
                if "depth" in back:
                    module = torch.nn.ModuleList([module] + [make(**back["args"]) for _ in range(back["depth"] - 1)])
                    seen.add("Encoder")
                module.load_state_dict(back["state_dict"])  # strict
                seen.add(back["module"])
        self.assertEqual(seen, set(SPECS))

    def test_objects(self):
        """An object needs no arguments, also inside DataParallel."""
        for name, module in (
            ("ConditionalRoutedTransformerBlock", self.block(router_kwargs={"eps": 0.5}, light_ff_mult=0.7)),
            (
                "ConditionalRoutedAutoregressiveAttention",
                colt5_attention.ConditionalRoutedAutoregressiveAttention(
                    8,
                    num_heavy_tokens_q=2,
                    num_heavy_tokens_kv=3,
                    heavy_window_size=5,
                    rotary_emb=True,
                    **self.options(),
                ),
            ),
        ):
            c = from_pytorch.convert(torch.nn.DataParallel(module))
            self.assertEqual((c.module, c.notes), (name, []))
            again = getattr(colt5_attention, name)(**from_pytorch.to_pytorch(c.weights, c.config, c.module)["args"])
            self.assertEqual(from_pytorch.convert(again).config, c.config)
        self.assertEqual(c.config["heavy_window_size"], 5)

    def test_stack(self):
        stack, norm, embed = torch.nn.ModuleList([self.block(), self.block()]), RMSNorm(8), torch.nn.Embedding(11, 8)
        c = from_pytorch.convert(stack, norm=norm, embed=embed)
        self.assertEqual((c.module, c.config["depth"], c.config["num_tokens"]), ("Encoder", 2, 11))
        with self.assertRaisesRegex(ConversionError, "layers.1.conditional_ff.light_ff.1.weight has shape"):
            from_pytorch.convert([self.block(), self.block(light_ff_mult=0.25)], norm=norm)
        with self.assertRaisesRegex(ConversionError, "router_kwargs of block 1"):
            from_pytorch.convert([self.block(), self.block(router_kwargs={"eps": 1.0})], norm=norm)
        with self.assertRaisesRegex(ConversionError, "without gamma"):
            from_pytorch.convert(stack, norm=torch.nn.LayerNorm(8))

    def test_wrong_objects(self):
        with self.assertRaisesRegex(ConversionError, "the module is a Linear"):
            from_pytorch.convert(torch.nn.Linear(2, 3))
        module = self.block()
        module.conditional_ff.router.eps = 0.5
        with self.assertRaisesRegex(ConversionError, "router_kwargs of the attention"):
            from_pytorch.convert(module)
        module = self.block()
        module.conditional_attn.kv_router.n_iters = 5
        with self.assertRaisesRegex(ConversionError, "n_iters of kv_router is 5"):
            from_pytorch.convert(module)

    def test_case_is_the_package(self):
        """Where no defect of the package concerns a case, its output is the package's, and the module is as before."""
        torch.manual_seed(0)
        module, x = self.block().train(), torch.randn(2, 24, 8)
        with torch.no_grad():
            before = module(x)
        report = from_pytorch.write_case(self.path("a.safetensors"), module, x)
        tensors, metadata = from_pytorch.read_safetensors(self.path("a.safetensors"))
        self.assertTrue(torch.allclose(tensors["out.y"], before, atol=1e-6))
        self.assertLess(report["difference"], 1e-6)
        self.assertEqual(metadata["module"], "ConditionalRoutedTransformerBlock")
        self.assertTrue(module.training)
        with torch.no_grad():
            self.assertTrue(torch.equal(module(x), before), "nothing of the package stays replaced")
        self.assertEqual(len([name for name in tensors if name.startswith("route.")]), 12)

    def test_case_of_files(self):
        """The command line makes the same case as a module."""
        weights, config, module = load("attention_routes")
        from_pytorch.write_safetensors(self.path("w.safetensors"), weights, {})
        x, mask = torch.randn(2, 21, 8), torch.ones(2, 21, dtype=torch.bool)
        mask[1, 15:] = False
        torch.save({"x": x, "mask": mask}, self.path("x.pt"))
        args = json.dumps(arguments("attention_routes"))
        from_pytorch.main(
            ["case", self.path("w.safetensors"), "--module", module, "--args", args, "--input", self.path("x.pt")]
            + ["--float64", "--out", self.path("case")]
        )
        back = from_pytorch.to_pytorch(weights, config, module)
        attention = colt5_attention.ConditionalRoutedAttention(**back["args"])
        attention.load_state_dict(back["state_dict"])
        from_pytorch.write_case(self.path("again.safetensors"), attention, x, mask=mask)
        case, metadata = from_pytorch.read_safetensors(self.path("case.safetensors"))
        again, _ = from_pytorch.read_safetensors(self.path("again.safetensors"))
        self.assertEqual((json.loads(metadata["config"]), metadata["rows"]), (config, "valid"))
        self.assertEqual(set(case), set(again))
        for name, t in case.items():
            self.assertTrue(torch.allclose(t, again[name], atol=1e-4), name)
        self.assertFalse(torch.equal(case["out.y"], again["out.y"]), "float64 and float32 differ in the last bits")

    def test_prefix_of_a_model(self):
        model = torch.nn.Module()
        model.encoder, model.norm = torch.nn.ModuleList([self.block(), self.block()]), RMSNorm(8)
        whole = from_pytorch.convert(model, prefix="encoder", norm="norm.gamma")
        state = from_pytorch.convert(model.state_dict(), prefix="encoder.", norm="norm.gamma", args=arguments("block"))
        self.assertEqual((whole.module, whole.config), ("Encoder", state.config))
        self.assertEqual(set(whole.weights), set(state.weights))
        with self.assertRaisesRegex(ConversionError, "no part 'decoder.'"):
            from_pytorch.convert(model, prefix="decoder")

    def test_ties(self):
        """With equal scores at the cut the case has the largest logits, and with ties="pytorch" what topk returns."""
        torch.manual_seed(1)
        module = colt5_attention.ConditionalRoutedFeedForward(
            8, num_heavy_tokens=8, router_kwargs={"fetch_k_ratio": 4.0}
        )
        x = torch.randn(1, 64, 8)
        report = from_pytorch.write_case(self.path("a.safetensors"), module, x)
        self.assertEqual(report["ties"], 1)
        tensors, _ = from_pytorch.read_safetensors(self.path("a.safetensors"))
        want = tensors["route.router.logits"][0].topk(8).indices
        self.assertEqual(set(want.tolist()), set(tensors["route.router.indices"][0].tolist()))
        from_pytorch.write_case(self.path("a.safetensors"), module, x, ties="pytorch")
        tensors, _ = from_pytorch.read_safetensors(self.path("a.safetensors"))
        with torch.no_grad():
            own = module.router(x, num_tokens=8).indices
        self.assertEqual(own.tolist(), tensors["route.router.indices"].tolist())


if __name__ == "__main__":
    unittest.main()
