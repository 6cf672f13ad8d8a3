"""Pure replica choice: snapshots of the replicas go in, addresses come out."""

from redserve.routing.affinity import spread_items
from redserve.routing.least_load import choose_llm
from redserve.routing.members import Member, merge_members, preferred
from redserve.routing.recent import RecentContents
from redserve.routing.snapshots import EncoderSnapshot, ItemFacts, LlmSnapshot, RequestFacts

__all__ = [
    "EncoderSnapshot",
    "ItemFacts",
    "LlmSnapshot",
    "Member",
    "RecentContents",
    "RequestFacts",
    "choose_llm",
    "merge_members",
    "preferred",
    "spread_items",
]
