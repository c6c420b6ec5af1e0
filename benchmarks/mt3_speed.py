"""How fast MT3 decodes: the full-size network with random weights, beside Hugging Face's T5 and the public port with
the same weights.

    python benchmarks/mt3_speed.py
    python benchmarks/mt3_speed.py --old-transformers FOLDER --port FOLDER
    python benchmarks/mt3_speed.py --attention  # measure only memory and the ways to attend, and write the tables again
    python benchmarks/mt3_speed.py --contenders # measure only the first table, instsep and the rivals; the others stay
    python benchmarks/mt3_speed.py --table      # measure nothing, write the tables again from the JSON

Writes benchmarks/results/mt3_speed.json and, made from it, mt3_speed.md, which is printed too. The first FOLDER
holds transformers 4.18, which the public PyTorch port of MT3 pins: `pip install --target FOLDER --no-deps
transformers==4.18.0 tokenizers==0.13.3 "huggingface_hub<0.20" sacremoses click joblib requests`, with its pin on
tokenizers relaxed in FOLDER/transformers/dependency_versions_table.py. The second is a checkout of that port,
kunato/mt3-pytorch, for its `models/t5.py` (needs `pip install einops`).

One thread, float32. Times are processor times, the fastest of several runs in turns; wall times depend on what else the
machine does. The port is called as its `inference.py` calls it. The other rival is
`T5ForConditionalGeneration.generate` with its key-value cache. T5 has no fixed positions, reads words and adds a
bias to its attention; here it gets features and positions as embeddings and a bias of zero, so that it computes what
MT3 computes. The tokens of both must be the same as instsep's.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from torch import nn
from common import RESULTS, arguments, processor, read_json, write_json, write_text

RESULT = RESULTS / "mt3_speed.json"
SIZES = dict(d_model=512, d_kv=64, d_ff=1024, num_heads=6, num_layers=8, num_decoder_layers=8, vocab_size=1536)
FRAMES, SEED = 256, 0
LENGTHS = (128, 256, 512, 1023)
CACHE_KB = 2*4*SIZES["num_decoder_layers"]*SIZES["num_heads"]*SIZES["d_kv"]/1e3  # keys and values of one token or frame
# weights read for each step: k and v of the encoder's output are not
DECODER = 8*(4*512*384 + 2*512*384 + 3*512*1024) + 512*1536


def random_weights() -> dict:
    "Weights of the full network that never write the end token, under our names."
    from instsep.mt3 import MT3, MT3Config
    torch.manual_seed(SEED)
    network = MT3(MT3Config(positions="kunato", **SIZES)).eval()
    network.lm_head.weight.data[1] = 0  # the end is never the most probable token
    return network.state_dict()


def ours(weights: dict):
    from instsep.mt3 import MT3, MT3Config
    network = MT3(MT3Config(positions="kunato", **SIZES)).eval()
    network.load_state_dict(weights)
    return lambda features, tokens, **options: network.generate(inputs=features, max_length=tokens + 1, **options)


class Positioned(nn.Module):
    "A token table that adds positions, counting the tokens it has seen since it was reset."
    def __init__(self, table: torch.Tensor, positions: torch.Tensor):
        super().__init__()
        self.weight, self.positions, self.seen = nn.Parameter(table), positions, 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        first, self.seen = self.seen, self.seen + ids.shape[1]
        return nn.functional.embedding(ids, self.weight) + self.positions[first:self.seen]


T5_VALUES = dict(**SIZES, feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
                 tie_word_embeddings=False, dropout_rate=0.1)


def t5_names(weights: dict) -> dict:
    "The layers' weights under the names of T5."
    names = {"attention": "layer.0.SelfAttention", "attention_norm": "layer.0.layer_norm",
             "self_attention": "layer.0.SelfAttention", "self_attention_norm": "layer.0.layer_norm",
             "cross_attention": "layer.1.EncDecAttention", "cross_attention_norm": "layer.1.layer_norm"}
    state = {}
    for name, tensor in weights.items():
        side, _, rest = name.partition(".")
        if side in ("encoder", "decoder"):
            number, part, *tail = rest.split(".")
            last = 1 if side == "encoder" else 2
            place = names.get(part) or f"layer.{last}." + ("DenseReluDense" if part == "feed_forward" else "layer_norm")
            state[".".join([side, "block", number, place, *tail])] = tensor
        elif side in ("encoder_norm", "decoder_norm"): state[f"{side[:7]}.final_layer_norm.weight"] = tensor
    return state


def rival(weights: dict):
    "Hugging Face's T5 with our weights."
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput
    config = T5Config(**T5_VALUES, relative_attention_num_buckets=32)
    config.scale_decoder_outputs = False  # newer versions: no factor before the last layer
    model = T5ForConditionalGeneration(config).eval()
    positions = weights_positions()
    missing = model.load_state_dict(t5_names(weights), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    for side in (model.encoder, model.decoder):
        side.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.zero_()
    model.lm_head = nn.Linear(SIZES["d_model"], SIZES["vocab_size"], bias=False)
    model.lm_head.weight.data = weights["lm_head.weight"].clone()  # not tied to the token table
    model.decoder.embed_tokens = Positioned(weights["embed.weight"].clone(), positions)

    def generate(features, tokens, **options):
        model.decoder.embed_tokens.seen = 0
        with torch.no_grad():
            embedded = features @ weights["project.weight"].T + positions[:features.shape[1]]
            encoded = model.encoder(inputs_embeds=embedded)[0]
            return model.generate(encoder_outputs=BaseModelOutput(last_hidden_state=encoded), max_length=tokens + 1,
                                  attention_mask=torch.ones(features.shape[:2], dtype=torch.long), do_sample=False,
                                  num_beams=1, **options)
    return generate


def port(weights: dict, folder: str):
    "The public port with our weights, called as it calls itself."
    sys.path.insert(0, folder)
    from models.t5 import T5Config, T5ForConditionalGeneration
    model = T5ForConditionalGeneration(T5Config.from_dict(T5_VALUES)).eval()
    state = t5_names(weights) | {"lm_head.weight": weights["lm_head.weight"]}
    for ours, theirs, copy in (("project", "proj", "encoder"), ("embed", "decoder_embed_tokens", "decoder")):
        state[f"{theirs}.weight"] = state[f"{copy}.embed_tokens.weight"] = weights[f"{ours}.weight"]
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) == {"encoder.pos_emb.inv_freq",
                                                                         "decoder.pos_emb.inv_freq"}, missing
    return lambda features, tokens, **options: model.generate(inputs=features, max_length=tokens + 1, num_beams=1,
                                                              do_sample=False,
                                                              length_penalty=0.4, eos_token_id=1, early_stopping=False,
                                                              **options)


def weights_positions() -> torch.Tensor:
    "The port's table of positions."
    half = SIZES["d_model"]//2
    angles = torch.arange(2048, dtype=torch.float64)[:, None]*10000**-(torch.arange(half, dtype=torch.float64)/half)
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def features(batch: int) -> torch.Tensor:
    return torch.randn(batch, FRAMES, SIZES["d_model"], generator=torch.Generator().manual_seed(SEED))


def measure(generators: dict, batch: int, tokens: int, repeats: int) -> dict:
    "For each generator the processor and wall seconds of its fastest run; they take turns."
    inputs, best, ids = features(batch), {}, {}
    for _ in range(repeats):
        for name, generate in generators.items():
            wall, cpu = time.perf_counter(), time.process_time()
            ids[name] = generate(inputs, tokens)
            run = dict(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall)
            if name not in best or run["cpu_s"] < best[name]["cpu_s"]: best[name] = run
            assert ids[name].shape == (batch, tokens + 1), ids[name].shape
    return {name: dict(batch=batch, new_tokens=tokens, cpu_s=round(run["cpu_s"], 3), wall_s=round(run["wall_s"], 3),
                       cpu_ms_per_token=round(1000*run["cpu_s"]/tokens, 2),
                       cpu_s_per_segment=round(run["cpu_s"]/batch, 3), ids=ids[name].tolist())
            for name, run in best.items()}


def per_token(generate, batch: int, tokens: int, repeats: int) -> list[float]:
    "Milliseconds of processor time for each token: the median in each eighth of the tokens."
    from transformers import LogitsProcessorList
    runs = []
    for _ in range(repeats):
        ticks = []
        def tick(ids, scores):
            ticks.append(time.process_time())
            return scores
        generate(features(batch), tokens, logits_processor=LogitsProcessorList([tick]))
        runs.append(np.diff(ticks)*1000)
    fastest = np.min(runs, axis=0)
    return [round(float(np.median(block)), 2) for block in np.array_split(fastest, 8)]


def whole(generators: dict, batch: int, repeats: int) -> dict:
    "Processor ms for each token of segments of several lengths, the encoder's work included."
    rows = {tokens: measure(generators, batch, tokens, repeats) for tokens in LENGTHS}
    return {f"{name}, batch {batch}": {str(tokens): rows[tokens][name]["cpu_ms_per_token"] for tokens in LENGTHS}
            for name in generators}


def one_after_another(generators: dict, batch: int, every: int, repeats: int) -> dict:
    "Processor seconds where one row more ends after each so many tokens, and where none does before the last."
    from transformers import LogitsProcessorList
    def end(ids, scores):
        going_on = (~(ids == 1).any(1)).nonzero()[:, 0]
        if ids.shape[1] % every == 0 and len(going_on): scores[going_on[0], 1] = scores[going_on[0]].max() + 1
        return scores
    best, inputs, tokens = {}, features(batch), batch*every
    for _ in range(repeats):
        for name, generate in generators.items():
            for key, processors in (("ending", [end]), ("all", [])):
                began = time.process_time()
                ids = generate(inputs, tokens, logits_processor=LogitsProcessorList(processors))
                times = best.setdefault(name, dict(ending=np.inf, all=np.inf))
                times[key] = round(min(times[key], time.process_time() - began), 3)
                if processors:
                    assert sorted((ids == 1).int().argmax(1).tolist()) == [every*(n + 1) for n in range(batch)], ids
    return dict(batch=batch, every=every, cpu_s=best)


def reading(batch: int, row: list[float]) -> list[dict]:
    "What a step must read in each eighth, and how fast that was: weights once, keys and values for each row."
    middles = (np.arange(8) + 0.5)*1023/8
    megabytes = 4*DECODER/1e6 + batch*CACHE_KB*(FRAMES + middles)/1e3
    return [dict(mb=round(float(mb)), gb_per_s=round(float(mb/ms), 1)) for mb, ms in zip(megabytes, row)]


def memory_speed() -> float:
    "GB/s of the plainest way through 120 MB, a sum."
    numbers, best = torch.ones(30_000_000), np.inf
    for _ in range(20):
        began = time.process_time()
        numbers.sum()
        best = min(best, time.process_time() - began)
    return round(0.12/best, 1)


def reading_of(flat: dict) -> dict:
    "The same for both batches of instsep, and beside it the speed of memory."
    return dict(sum_gb_per_s=memory_speed()) | {name: reading(batch, flat[name]) for name, batch in
                                                (("instsep, batch 1", 1), ("instsep, batch 5", 5))}


def attention_ways(batch: int = 5, tokens: int = 1000, rounds: int = 8) -> dict:
    """Ways for one query to attend to all tokens so far: processor ms for all layers, and the largest error of what
    comes out."""
    layers, heads, width = SIZES["num_decoder_layers"], SIZES["num_heads"], SIZES["d_kv"]
    torch.manual_seed(SEED)
    query = torch.randn(batch, heads, 1, width)*width**-0.5
    cache = [(torch.randn(batch, heads, tokens, width), torch.randn(batch, heads, tokens, width))
             for _ in range(layers)]
    half = [(keys.half(), values.half()) for keys, values in cache]
    bfloat = [(keys.bfloat16(), values.bfloat16()) for keys, values in cache]
    def sdpa(query, keys, values): return nn.functional.scaled_dot_product_attention(query, keys, values, scale=1.0)
    def products(query, keys, values): return (query @ keys.mT).softmax(-1) @ values
    def widened(query, keys, values): return products(query, keys.float(), values.float())
    def by_rows(query, keys, values):
        return torch.cat([widened(*row) for row in zip(*(x.split(1) for x in (query, keys, values)))])
    ways = {"instsep: scaled_dot_product_attention, 32 bits": (sdpa, query, cache),
            "two products, 32 bits": (products, query, cache),
            "scaled_dot_product_attention, float16": (sdpa, query.half(), half),
            "two products, float16": (products, query.half(), half),
            "two products, bfloat16": (products, query.bfloat16(), bfloat),
            "kept in float16, widened, two products": (widened, query, half),
            "the same, row by row": (by_rows, query, half)}
    best, expected = {}, [sdpa(query, *layer) for layer in cache]
    with torch.inference_mode():
        for _ in range(rounds):
            for name, (attend, asked, layers) in ways.items():
                began = time.process_time()
                found = [attend(asked, *layer) for layer in layers]
                best[name] = min(best.get(name, np.inf), time.process_time() - began)
                if name not in (errors := best.setdefault("errors", {})):
                    errors[name] = max(float((x.float() - y).abs().max()) for x, y in zip(found, expected))
    return dict(batch=batch, tokens=tokens,
                ways={name: dict(cpu_ms=round(1000*best[name], 2), error=float(f"{best['errors'][name]:.1e}"))
                      for name in ways})


def run_old(folder: str, port_folder: str | None, weights: dict, repeats: int, output: Path,
            contenders: bool = False) -> dict:
    "The rivals under the version of transformers in that folder, in a process of its own."
    output.parent.mkdir(parents=True, exist_ok=True)
    weights_file = output.with_suffix(".weights")
    command = [sys.executable, __file__, "--only-rival", str(weights_file), "--repeats", str(repeats)]
    command += ["--port", port_folder]*bool(port_folder) + ["--contenders"]*contenders
    torch.save(weights, weights_file)
    try: done = subprocess.run(command, env=dict(os.environ, PYTHONPATH=folder), capture_output=True, text=True)
    finally: weights_file.unlink()
    if done.returncode: sys.exit(f"{folder}: failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def only_rival(weights_file: Path, port_folder: str | None, repeats: int, contenders: bool) -> None:
    "What `run_old` starts: print the rivals' numbers as one line."
    import transformers
    transformers.logging.set_verbosity_error()
    weights = torch.load(weights_file, weights_only=True)
    rivals = {f"transformers {transformers.__version__} T5": rival(weights)}
    if port_folder: rivals[f"the port, transformers {transformers.__version__}"] = port(weights, port_folder)
    table = measure(rivals, 5, 128, repeats)
    if contenders: return print(json.dumps(dict(table=table)))
    print(json.dumps(dict(table=table, whole=whole(rivals, 5, 1),
                          per_token={f"{name}, batch 5": per_token(generate, 5, 1023, 1)
                                     for name, generate in rivals.items()})))


def with_same_tokens(table: dict) -> dict:
    "The rows of a table, each with whether its tokens are the same as instsep's instead of the tokens."
    reference = table["instsep"]["ids"]
    return {name: {key: value for key, value in row.items() if key != "ids"} | dict(same_tokens=row["ids"] == reference)
            for name, row in table.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--old-transformers", metavar="FOLDER", help="also measure the transformers installed there")
    parser.add_argument("--port", metavar="FOLDER",
                        help="also measure the port in that checkout; needs --old-transformers")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--attention", action="store_true",
                        help="measure only memory and the ways to attend; the rest stays")
    parser.add_argument("--contenders", action="store_true",
                        help="measure only 5 segments of 128 tokens; the rest stays")
    parser.add_argument("--table", action="store_true", help="only write and print the tables of the JSON again")
    parser.add_argument("--only-rival", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.port and not (options.old_transformers or options.only_rival):
        parser.error("--port needs --old-transformers")
    if options.only_rival: return only_rival(options.only_rival, options.port, options.repeats, options.contenders)
    if options.attention:
        result = read_json(options.output)
        flat = result["cpu_ms_per_token_by_eighths_of_1023"]
        result |= dict(reading_by_eighths_of_1023=reading_of(flat), attention=attention_ways())
        write_json(options.output, result)
        return report(result, options.output.with_suffix(".md"))
    if options.table: return report(read_json(options.output), options.output.with_suffix(".md"))
    import instsep
    import transformers
    weights, repeats = random_weights(), options.repeats
    name = f"transformers {transformers.__version__} T5"
    mine, theirs = ours(weights), rival(weights)
    table = measure({"instsep": mine, name: theirs}, 5, 128, repeats)
    here = dict(machine=dict(processor=processor(family=True), threads=1,
                             load_average=[round(x, 1) for x in os.getloadavg()]),
                versions=dict(python=platform.python_version(), torch=torch.__version__,
                              transformers=transformers.__version__,
                              instsep=instsep.__version__))
    if options.contenders:
        if options.old_transformers:
            table |= run_old(options.old_transformers, options.port, weights, repeats, options.output,
                             contenders=True)["table"]
        result = read_json(options.output) | dict(batch_5=with_same_tokens(table), batch_5_measured=here)
        write_json(options.output, result)
        return report(result, options.output.with_suffix(".md"))
    attention = attention_ways()
    flat = {f"instsep, batch {batch}": per_token(mine, batch, 1023, min(3, repeats)) for batch in (1, 5)}
    read = reading_of(flat)
    flat[f"{name}, batch 5"] = per_token(theirs, 5, 1023, 1)
    segments = {key: row for batch in (1, 5, 8, 32)
                for key, row in whole({"instsep": mine}, batch, min(2, repeats)).items()}
    segments |= whole({name: theirs}, 5, 1)
    ending = one_after_another({"instsep": mine, name: theirs}, 16, 16, min(3, repeats))
    if options.old_transformers:
        old = run_old(options.old_transformers, options.port, weights, repeats, options.output)
        table |= old["table"]
        segments |= old["whole"]
        flat |= old["per_token"]
    table = with_same_tokens(table)
    batches = [row for tokens in (128, 256) for batch in (1, 2, 5, 8, 16, 32)
               for row in measure({"instsep": mine}, batch, tokens, min(3, repeats)).values()]
    for row in batches: del row["ids"]
    result = dict(
        command="python benchmarks/mt3_speed.py" + " --old-transformers FOLDER"*bool(options.old_transformers)
        + " --port FOLDER"*bool(options.port),
        **here,
        network=dict(parameters=sum(t.numel() for t in weights.values()), frames=FRAMES, seed=SEED),
        batch_5=table, batches=batches, ending_one_after_another=ending, cpu_ms_per_token_of_segments=segments,
        cpu_ms_per_token_by_eighths_of_1023=flat, reading_by_eighths_of_1023=read, attention=attention)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, result)
    report(result, options.output.with_suffix(".md"))


def rows_of(header: list[str], rows: list[list]) -> str:
    "A table in Markdown; all columns but the first are numbers."
    lines = [header, ["---"] + ["---:"]*(len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def report(result: dict, path: Path) -> None:
    "Write the tables and print them."
    machine, versions, eighths = result["machine"], result["versions"], result["cpu_ms_per_token_by_eighths_of_1023"]
    slowest = list(result["batch_5"].values())[-1]["cpu_ms_per_token"]
    contenders = [[name, f"{row['cpu_s']:.2f}", f"{row['wall_s']:.2f}", f"{row['cpu_ms_per_token']:.1f}",
                   f"{row['cpu_ms_per_token']/slowest:.2f}", "yes" if row["same_tokens"] else "NO"]
                  for name, row in result["batch_5"].items()]
    by_tokens = {tokens: [row for row in result["batches"] if row["new_tokens"] == tokens] for tokens in (128, 256)}
    sizes = [[few["batch"]] + [text for row, rows in ((few, by_tokens[128]), (many, by_tokens[256]))
                               for text in (f"{row['cpu_s_per_segment']:.3f}",
                                            f"{rows[0]['cpu_s_per_segment']/row['cpu_s_per_segment']:.1f}")]
             for few, many in zip(by_tokens[128], by_tokens[256])]
    flat = [[name, *(f"{value:.1f}" for value in row), f"{row[-1]/row[0]:.2f}"] for name, row in eighths.items()]
    whole_rows = [[name, *(f"{value:.1f}" for value in row.values()), f"{max(row.values())/row[str(LENGTHS[0])]:.2f}"]
                  for name, row in result["cpu_ms_per_token_of_segments"].items()]
    read = dict(result["reading_by_eighths_of_1023"])
    fastest = read.pop("sum_gb_per_s")
    bytes_read = [[f"{name}, {unit}", *(row[key] for row in rows), f"{rows[-1][key]/rows[0][key]:.2f}"]
                  for name, rows in read.items() for unit, key in (("MB", "mb"), ("GB/s", "gb_per_s"))]
    def grows(name: str) -> str:
        "How many MB and ms the last eighth has more than the first."
        more, longer = (read[name][-1]["mb"] - read[name][0]["mb"], eighths[name][-1] - eighths[name][0])
        return f"{more} MB more in {longer:.1f} ms more, {more/longer:.0f} GB/s"
    def at_best(name: str) -> str:
        "How much dearer the last eighth were than the first, if what grows were read as fast as the sum reads."
        first = eighths[name][0]
        return (f"{1 + (read[name][-1]['mb'] - read[name][0]['mb'])/fastest/first:.2f} instead of "
                f"{eighths[name][-1]/first:.2f} times")
    ending = result["ending_one_after_another"]
    shrinking = [[name, f"{row['ending']:.2f}", f"{row['all']:.2f}", f"{row['ending']/row['all']:.2f}"]
                 for name, row in ending["cpu_s"].items()]
    ways = [[name, f"{way['cpu_ms']:.1f}", f"{way['error']:.0e}"] for name, way in result["attention"]["ways"].items()]
    again = result.get("batch_5_measured")
    where = "" if not again else f"""
On {again["machine"]["processor"]}, {again["machine"]["threads"]} thread, load average \
{again["machine"]["load_average"][0]};
{", ".join(f"{name} {version}" for name, version in again["versions"].items())}. All tables below this one are older: \
measured on
what the first line of this page names, with an earlier version that let oneDNN multiply through functions that are \
not public.
"""
    text = f"""# How fast MT3 decodes


`{result["command"]}` on {machine["processor"]}, {machine["threads"]} thread, load average {machine["load_average"][0]};
{", ".join(f"{name} {version}" for name, version in versions.items())}.
The full-size network ({result["network"]["parameters"]:,} parameters) with random weights, {FRAMES} frames in a \
segment;
processor times, the fastest of several runs.{result.get("note", "")}

## 5 segments, 128 new tokens
{where}
{rows_of(["", "processor, s", "wall, s", "ms per token", "of the last", "same tokens"], contenders)}

The T5 is Hugging Face's `T5ForConditionalGeneration.generate` with the same weights and a key-value cache; version \
4.18 is
what the public PyTorch port of MT3 (kunato/mt3-pytorch) pins. The port is a T5 of that version in which two things \
differ in
what they cost: nothing is added to its attention's scores but a mask, and it computes its table of 2048 positions \
anew at every step.

## Batch size, instsep: processor seconds for each segment

{rows_of(["batch", "128 tokens", "times batch 1", "256 tokens", "times batch 1"], sizes)}

## {ending["batch"]} segments that end one after another, {ending["every"]} tokens apart: processor seconds

{rows_of(["", "ending", "none before the last", "ratio"], shrinking)}

Rows that have ended leave the batch when half of it is done.

## Segments of several lengths: processor ms for each token, encoder included

{rows_of(["", *(f"{tokens} tokens" for tokens in LENGTHS), "most/first"], whole_rows)}

## 1023 new tokens: processor ms for each token, in each eighth

{rows_of(["", *map(str, range(1, 9)), "last/first"], flat)}

What a whole segment costs for each of its tokens stays what it was: the encoder runs once, and the more tokens are \
decoded,
the less of that falls to each, while a later token costs more than an early one. What that is:

## What a step reads: MB, and how fast

{rows_of(["", *map(str, range(1, 9)), "last/first"], bytes_read)}

No past token is ever computed again, and the past is copied only every 64 tokens. A step reads the decoder's weights \
once for
all rows ({4*DECODER/1e6:.0f} MB) and for each row the keys and values of {FRAMES} frames and of all tokens so far
({CACHE_KB:.1f} kB each). From the first to the last eighth that is {grows("instsep, batch 1")} for batch 1, and
{grows("instsep, batch 5")} for batch 5. A plain sum over 120 MB reads {fastest} GB/s. Were the growing
part read as fast as that, the last eighth of a segment would cost {at_best("instsep, batch 1")} the first for batch \
1, and
{at_best("instsep, batch 5")} for batch 5: within a segment the cost of a token is not flat, and while every step \
reads the whole
cache, it cannot be.

## Ways for one query to attend to {result["attention"]["tokens"]} tokens, \
batch {result["attention"]["batch"]}, all layers

{rows_of(["", "processor, ms", "largest error"], ways)}

Half the bytes are not half the time: products of 16-bit numbers are slower here, and widening them costs about what \
reading
them saves; and they are less exact: a single layer errs by 1e-4 or more (keys and values here are random, of size 1).
"""
    write_text(path, text)
    print(text)


if __name__ == "__main__": main()
