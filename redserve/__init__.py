"""REDServe: serve large multimodal models with encoding and prefill overlapped inside a request.

This package is the library that every deployable (router, encoder, LLM engine, operator) stands on.
Reading order: ``domain`` (words), ``scheduling`` and ``routing`` (decisions), ``transport`` and
``wire`` (edges), ``modeling`` (checkpoints), ``spec`` (what users write), ``local`` and ``cli``.
"""

__version__ = "0.1.0"
