"""Encoder: turns items into embeddings and publishes each as soon as it is done.

__main__, arguments   settings from environment and flags; exit codes
replica       one encoder process, put together: pool, engine, server
servicer, intake      EncoderService; one Encode call: items in, outcomes out
reception             where a delivery goes, and how it is dropped wherever it stands
delivery, ledger      one item of one call, the arrows between its states; all of them
engine                the loop: next batch, encode, publish
lineup, flight        what is prepared one batch ahead; work on one content
pictures, sizes       content hashes, decoding, prepared pixels, metadata by size
cache                 embeddings in the transport pool: pinned, cached, evicted
publisher, holds      telling the LLM replica, and keeping the bytes until it has them
llm_clients           connections to LLM replicas
load, bars            what load reports and timelines show
vision                what is asked of a model; checkpoint_vision is the real one
fake                  a model without weights that takes the time it is told to take
"""
