"""Starts llama.cpp's server from the package xllamacpp, by the flags of llama-server.

It stands in where the packaged llama-server was built for another processor.
"""

import argparse
import importlib.metadata
import signal

import xllamacpp

flags = argparse.ArgumentParser(allow_abbrev=False)
flags.add_argument("--version", action="version", version=importlib.metadata.version("xllamacpp"))
flags.add_argument("-m", required=True)
flags.add_argument("-c", type=int)
flags.add_argument("-np", type=int)
flags.add_argument("-t", type=int, default=2)
flags.add_argument("-a")
flags.add_argument("--host", default="127.0.0.1")
flags.add_argument("--port", type=int, default=8080)
flags.add_argument("--api-key")
flags.add_argument("--no-jinja", action="store_true")
given = flags.parse_args()

params = xllamacpp.CommonParams()
params.model.path = given.m
params.hostnames = [given.host]
params.port = given.port
params.cpuparams.n_threads = given.t
params.cpuparams_batch.n_threads = given.t
params.use_jinja = not given.no_jinja
if given.c:
    params.n_ctx = given.c
# llama-server's own default is four slots that share one context.
params.n_parallel = given.np or 4
params.kv_unified = given.np is None
if given.a:
    params.model_alias = [given.a]
if given.api_key:
    params.api_keys = [given.api_key]

server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
