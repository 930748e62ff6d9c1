"""Names and where they live. Importing this module imports nothing heavy.

One line per method, model family, attention engine or solver; classes are loaded when asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from longgen.errors import unknown

METHODS: dict[str, str] = {
    "direct": "longgen.methods.direct:Direct",
    "adain": "longgen.methods.adain:Adain",
    "ditctrl": "longgen.methods.ditctrl:DiTCtrl",
    "extend": "longgen.methods.extend:Extend",
    "fifo": "longgen.methods.fifo:Fifo",
    "flowlong": "longgen.methods.flowlong:FlowLong",
    "freeinit": "longgen.methods.freeinit:FreeInit",
    "freeloc": "longgen.methods.freeloc:FreeLoc",
    "freelong": "longgen.methods.freelong:FreeLong",
    "freelongpp": "longgen.methods.freelongpp:FreeLongPP",
    "freenoise": "longgen.methods.freenoise:FreeNoise",
    "freepca": "longgen.methods.freepca:FreePca",
    "lvsa": "longgen.methods.lvsa:Lvsa",
    "miga": "longgen.methods.fifo:Miga",
    "ntk": "longgen.methods.ntk:Ntk",
    "pi": "longgen.methods.pi:Pi",
    "riflex": "longgen.methods.riflex:Riflex",
    "specmix": "longgen.methods.specmix:SpecMix",
    "ultravico": "longgen.methods.ultravico:UltraViCo",
    "windows": "longgen.methods.windows:Windows",
}

# Ours: methods that do together what none of them does alone, with their settings, under one name.
COMPOSITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": ("ultravico,freenoise.noise,windows", {"windows.window_scale": 3.0}),
}

# diffusers class of the transformer → the family's adapter module (which offers describe() and load()).
FAMILIES: dict[str, str] = {
    "CogVideoXTransformer3DModel": "longgen.models.cogvideox",
    "HunyuanVideo15Transformer3DModel": "longgen.models.hunyuan15",
    "HunyuanVideoTransformer3DModel": "longgen.models.hunyuan",
    "LTX2VideoTransformer3DModel": "longgen.models.ltx2",
    "LTXVideoTransformer3DModel": "longgen.models.ltx",
    "SkyReelsV2Transformer3DModel": "longgen.models.skyreels",
    "WanTransformer3DModel": "longgen.models.wan",
    "WanVACETransformer3DModel": "longgen.models.vace",
}

ENGINES: dict[str, str] = {
    "sdpa": "longgen.attention.sdpa:Sdpa",
    "sdpa-flash": "longgen.attention.sdpa:SdpaFlash",
    "sdpa-cudnn": "longgen.attention.sdpa:SdpaCudnn",
    "sdpa-efficient": "longgen.attention.sdpa:SdpaEfficient",
    "sdpa-math": "longgen.attention.sdpa:SdpaMath",
    "xformers": "longgen.attention.xformers:Xformers",
    "flash2": "longgen.attention.flash:Flash2",
    "flash3": "longgen.attention.flash:Flash3",
    "varlen": "longgen.attention.varlen:Varlen",
    "flex": "longgen.attention.flex:Flex",
    "sage": "longgen.attention.sage:Sage",
}


def load(target: str) -> Any:
    """The object behind "module:name"."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def lookup(table: dict[str, str], kind: str, name: str) -> Any:
    """The object registered as `name`; BadInput names the nearest valid one."""
    if name not in table:
        raise unknown(kind, name, table)
    return load(table[name])


def method(name: str) -> Any:
    """The class of a method."""
    if name not in METHODS:
        raise unknown("method", name, [*METHODS, *COMPOSITIONS])
    return load(METHODS[name])
