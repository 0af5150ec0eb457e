"""Millions of pictures in, shards of predictions out, by as many processes as there are cores or machines.

A run is planned once: `sources` cuts what was given into chunks of pictures, `plan` writes them down as
parts. An engine (`local`, `ray_engine`) has every chunk analysed by a worker that holds the model (`work`),
and `shards` writes each part, whole or not at all. A stopped run goes on with the parts that are missing.
"""
