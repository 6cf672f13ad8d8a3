"""Checkpoints, model families, prompts, pixels and model halves: what encoder and LLM share.

Importing this package imports nothing else; the modules marked `torch` import it.

    checkpoint     resolve(uri) -> local folder; fingerprint(folder)
    families       family_of(folder) -> Family, or UnsupportedModel before a weight is read
    weights        which weight files there are, and whether they are whole
    tokenizer      load_tokenizer, as the checkpoint's processor would
    chat_template  where a template lies, and how turns are written for it
    prompt         PromptRenderer: chat template, placeholder expansion, tokens and spans
    images         decode_image(bytes) -> PIL image, with limits checked before decoding
    processors     the checkpoint's transformers processor, without torchvision
    sizing         what a processor would say of a picture, from its size alone
    processing     ItemProcessor: PIL image -> metadata and pixel tensors    (torch for pixels)
    parts          load_vision, load_language: half of a checkpoint each                (torch)
    collation      which items share a forward of the vision side                       (torch)
    vision         VisionPart.encode: pixel tensors -> embedding rows                   (torch)
    language       LanguagePart: pruned model, KV layout, how rows enter it             (torch)
    positions      prompt_positions: position ids of a prompt, also for M-RoPE          (torch)
    devices        select_device, free_bytes, total_bytes                               (torch)
    device_slab    DeviceSlab: memory of a device as a pool's memory                    (torch)
    gpu_direct     whether a NIC reaches a GPU's memory, and how its writes become visible
"""
