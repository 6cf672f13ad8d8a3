"""Encoder: turns items into embeddings and publishes each as soon as it is done.

__main__, arguments   settings from environment and flags; exit codes
replica               one encoder process, put together: pool, engine, server
servicer              EncoderService: protobuf to values and back, nothing else
engine                the loop: next batch, encode, publish
flight, lineup        work on one content; what is prepared one batch ahead
delivery              one item of one call, and the arrows between its states
pictures, sizes       content hashes, decoding, prepared pixels, metadata by size
cache                 embeddings in the transport pool: held, cached, evicted
publisher, holds      telling the LLM replica, and keeping the bytes until it has them
vision                what the engine asks of a model; checkpoint_vision is the real one
fake                  a model that needs no weights and takes the time it is told to take
"""
