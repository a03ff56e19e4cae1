"""Makes a tiny model whose weights say scripted answers, for real model servers.

    make_model.py FOLDER TEXT...

The files TEXT train the tokenizer. FOLDER gets `tiny.gguf` for llama.cpp, and is a Hugging Face
cache with the models `local/tiny` (of the family Qwen 3) and `local/tiny-llama` (the same weights
under the name of a family that transformers knows no form of calls for). `model` in it leads to
the files of the former.

Attention and MLP are zero, so the next token depends on the last one alone. Every piece of an
answer is a token of its own: its embedding has a single 1, and the output layer answers that 1
with the piece that follows. The chat template chooses the answer: it ends the prompt with a token
that names a scene and a step, and that token leads to the answer's first piece.
"""

import json
import pathlib
import sys

import gguf
import numpy
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, HEADS, HEAD, MLP, CONTEXT = 256, 4, 64, 64, 65536
REVISION = "0" * 40
END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"

# Each scene is a list of answers; a step is taken with each answer that called a tool. A `|` parts
# two pieces, and no piece is used twice. A task chooses a scene by the words `scene NAME`.
SCENES = {
    "note": [
        'I write| the note.|\n<tool_call>\n{"name": "bash", |"arguments": {"command": "|'
        'echo hello| from a real server| > note.txt|"}}\n</tool_call>',
        '<tool_call>\n{"name": "bash"|, "arguments": |{"command": "cat |note.txt"}}\n</tool_call>',
        "The note| says hello|, and| all is done.",
    ],
    "think": [
        "<think>|\nA note| is wanted|, so I| write one.|\n</think>|\n\n|<tool_call>\n"
        '{"name": "bash", "arg|uments": {"command": "echo thought|ful > note.txt"}}\n</tool_call>',
        "I thought| first|, then wrote| it.",
    ],
    "two": [
        '<tool_call>\n{"name": "bash", "argu|ments": {"command": "echo one| > note.txt"}}\n'
        '</tool_call>|\n<tool_call>\n{"name": "bash", "argum|ents": {"command": "echo two'
        '| > second.txt"}}\n</tool_call>',
        "Both notes| are written.",
    ],
    # The question that `sandbox-mcp doctor` asks.
    "probe": [
        '<tool_call>\n{"name": "lookup_|password", "arguments": {"name": "har|bour"}}\n</tool_call>',
        "The password| is cormorant|.",
    ],
}

# The Hermes form, which Qwen's models use and every server has a parser for.
TEMPLATE = """
{%- set seen = namespace(scene='note', step=0) %}
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\nYou may call functions. Their signatures:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\n\\nA call is one JSON object within these tags:\\n<tool_call>\\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- set text = message.content if message.content is string else (message.content | tojson) %}
{%- set seen.step = 0 %}
CHOOSE
{{- '<|im_start|>user\\n' + text + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}
{%- set seen.step = seen.step + 1 %}
{%- for called in message.tool_calls %}
{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
{%- set call = called.function if called.function else called %}
{{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
{%- if call.arguments is string %}{{- call.arguments }}
{%- else %}{{- call.arguments | tojson }}{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
ANSWER
{%- endif %}"""


def mark(scene, step):
    """Returns the text of the token that leads to an answer.

    It is made of wide spaces: transformers takes what follows the prompt's last `assistant` for
    the beginning of the answer, and there spaces hurt nobody.
    """
    number = [(name, at) for name in SCENES for at in range(len(SCENES[name]))].index((scene, step))
    return "".join("\u2003" if number >> bit & 1 else "\u2002" for bit in range(6))


def template():
    choose, answer = "", ""
    for scene, answers in SCENES.items():
        word = "lookup_password" if scene == "probe" else f"scene {scene}"
        choose += f"{{%- if '{word}' in text %}}{{%- set seen.scene = '{scene}' %}}{{%- endif %}}"
        for step in range(len(answers)):
            later = ">=" if step == len(answers) - 1 else "=="
            answer += f"{{%- if seen.scene == '{scene}' and seen.step {later} {step} %}}"
            answer += f"{{{{- '{mark(scene, step)}' }}}}{{%- endif %}}"
    return TEMPLATE.replace("CHOOSE", choose).replace("ANSWER", answer)


def script():
    """Returns the control tokens, the pieces, and which token follows which."""
    control, pieces, follows = [START, END, PAD], [], {}
    for scene, answers in SCENES.items():
        for step, answer in enumerate(answers):
            last = mark(scene, step)
            control.append(last)
            for piece in answer.split("|"):
                if piece in pieces:
                    sys.exit(f"the piece {piece!r} of the scene {scene} is used twice")
                pieces.append(piece)
                follows[last] = piece
                last = piece
            follows[last] = END
    return control, pieces, follows


def tokenizer(texts, control, pieces):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train(
        texts,
        trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_special_tokens([AddedToken(word, normalized=False) for word in control])
    made.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    return made


def weights(made, scripted, follows):
    """Returns the tensors by the names that Hugging Face gives them in a Qwen 3 model."""
    rows = -(-made.get_vocab_size() // 64) * 64
    if len(scripted) >= WIDTH:
        sys.exit(f"{len(scripted)} scripted tokens do not fit a width of {WIDTH}")
    embedding = numpy.zeros((rows, WIDTH), numpy.float32)
    output = numpy.zeros((rows, WIDTH), numpy.float32)
    number = made.token_to_id
    # Every other token shares the first place, and the end follows it.
    embedding[:, 0] = 1
    output[number(END), 0] = 2
    for place, word in enumerate(scripted, start=1):
        embedding[number(word)] = 0
        embedding[number(word), place] = 1
        output[number(follows.get(word, END)), place] = 2
    zeros = {
        "self_attn.q_proj": (HEADS * HEAD, WIDTH),
        "self_attn.k_proj": (HEAD, WIDTH),
        "self_attn.v_proj": (HEAD, WIDTH),
        "self_attn.o_proj": (WIDTH, HEADS * HEAD),
        "mlp.gate_proj": (MLP, WIDTH),
        "mlp.up_proj": (MLP, WIDTH),
        "mlp.down_proj": (WIDTH, MLP),
    }
    ones = {
        "input_layernorm": WIDTH,
        "post_attention_layernorm": WIDTH,
        "self_attn.q_norm": HEAD,
        "self_attn.k_norm": HEAD,
    }
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": output,
        "model.norm.weight": numpy.ones(WIDTH, numpy.float32),
        **{f"{layer}{name}.weight": numpy.zeros(of, numpy.float32) for name, of in zeros.items()},
        **{f"{layer}{name}.weight": numpy.ones(of, numpy.float32) for name, of in ones.items()},
    }


def write_hugging_face(cache, name, family, made, tensors):
    place = cache / "hub" / f"models--local--{name}"
    folder = place / "snapshots" / REVISION
    folder.mkdir(parents=True, exist_ok=True)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / "main").write_text(REVISION)
    number = made.token_to_id

    def write(name, content):
        (folder / name).write_text(json.dumps(content, indent=1))

    ends = {"bos_token_id": number(PAD), "eos_token_id": number(END)}
    write("generation_config.json", ends)
    write(
        "config.json",
        {
            "architectures": [f"{family.capitalize()}ForCausalLM"],
            "model_type": family,
            "hidden_size": WIDTH,
            "intermediate_size": MLP,
            "num_hidden_layers": 1,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "head_dim": HEAD,
            "vocab_size": len(tensors["lm_head.weight"]),
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "hidden_act": "silu",
            "attention_bias": False,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            **ends,
        },
    )
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "bos_token": None,
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    (folder / "chat_template.jinja").write_text(template())
    made.save(str(folder / "tokenizer.json"))
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})


def write_gguf(path, made, tensors, control, pieces):
    out = gguf.GGUFWriter(str(path), "qwen3")
    out.add_name("tiny")
    out.add_block_count(1)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(MLP)
    out.add_head_count(HEADS)
    out.add_head_count_kv(1)
    out.add_key_length(HEAD)
    out.add_value_length(HEAD)
    out.add_rope_freq_base(1e6)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)

    kinds = gguf.TokenType
    words = {number: word for word, number in made.get_vocab().items()}
    tokens, types = [], []
    for number in range(len(tensors["lm_head.weight"])):
        word = words.get(number, f"[unused {number}]")
        tokens.append(word)
        types.append(
            kinds.UNUSED
            if number not in words
            else kinds.CONTROL
            if word in control
            else kinds.USER_DEFINED
            if word in pieces
            else kinds.NORMAL
        )
    merges = json.loads(made.to_str())["model"]["merges"]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(tokens)
    out.add_token_types(types)
    out.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    out.add_bos_token_id(made.token_to_id(PAD))
    out.add_eos_token_id(made.token_to_id(END))
    out.add_pad_token_id(made.token_to_id(PAD))
    out.add_add_bos_token(False)
    out.add_chat_template(template())

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 1)
    for name, tensor in tensors.items():
        out.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    folder, texts = pathlib.Path(sys.argv[1]), sys.argv[2:]
    control, pieces, follows = script()
    made = tokenizer(texts, control, pieces)
    tensors = weights(made, control + pieces, follows)
    write_hugging_face(folder, "tiny", "qwen3", made, tensors)
    write_hugging_face(folder, "tiny-llama", "llama", made, tensors)
    link = folder / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(f"hub/models--local--tiny/snapshots/{REVISION}")
    write_gguf(folder / "tiny.gguf", made, tensors, control, pieces)


main()
