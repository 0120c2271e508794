"""``vrampack plan --fleet-for``: the cheapest set of nodes, from a price list, that holds these models."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from math import floor, log10
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import Field, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vrampack.agent.fleet import Fleet, NodeGroup
from vrampack.agent.products import PRODUCTS
from vrampack.cli.estimate import Output as Structured
from vrampack.cli.estimate import echo_structured
from vrampack.cli.manifests import mapping, objects_of
from vrampack.cli.plan import DOES_NOT_FIT, Output
from vrampack.cli.plansubject import Manifests, Read, fleet_snapshot, planned
from vrampack.errors import InvalidInputError
from vrampack.packing.problem import Item
from vrampack.packing.purchase import Offer, Purchase, purchases
from vrampack.planning.candidates import Eligibility
from vrampack.planning.cases import cases
from vrampack.planning.inventory import inventory
from vrampack.planning.rollout import prospect
from vrampack.planning.verdict import Blocked, Settings
from vrampack.units import counted

_DIGITS: Final = 4
"""Of the lowest price so many digits are counted at least, and told."""
_COUNTED: Final = 1 << 62
"""The packer counts prices in whole numbers of 64 bits, that of a whole fleet too."""


class PricedNode(NodeGroup):
    """A kind of node that can be had, as in a fleet file, with the price of one."""

    price: Annotated[float, Field(ge=1e-6, le=1e9)]
    most: Annotated[int, Field(ge=1)] | None = None


class PriceList(Fleet):
    """A price list. ``unit``: of its prices, for people: ``USD/h``."""

    nodes: tuple[PricedNode, ...] = Field(min_length=1)
    unit: Annotated[str, Field(max_length=16)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """``digits``: decimals of the list's unit in which the offers' prices are counted; ``told``: those for people."""

    offers: tuple[Offer, ...]
    items: tuple[Item, ...]
    unit: str
    digits: int
    told: int

    def price(self, amount: int) -> float:
        """In the list's unit."""
        return amount / int(10**self.digits)

    def money(self, amount: int) -> str:
        """For people."""
        return f"{self.price(amount):.{self.told}f}"


def answer(manifests: Manifests, prices: Path, *, read: Read, seconds: float, output: Output) -> int:
    """Prints the cheapest set, and gives the exit status: 0 there is one, 2 there is none, 1 it was interrupted before
    that was known.

    Raises InvalidInputError for a price list that can't be read, and a model whose memory is not known.
    """
    question = _question(manifests, read_prices(prices), read)
    best, ended = _cheapest(question, seconds=seconds)
    if best is None and not ended:
        typer.echo("vrampack: interrupted before any set was found that holds the models", err=True)
        return 1
    if output in (Output.JSON, Output.YAML):
        echo_structured(_to_json(question, best), Structured(output.value))
    elif output is Output.MARKDOWN:
        typer.echo("\n".join(_markdown(question, best)))
    else:
        Console().print(*_picture(question, best), sep="\n")
    return DOES_NOT_FIT if best is None else 0


def _cheapest(question: _Question, *, seconds: float) -> tuple[Purchase | None, bool]:
    """The best that is found in ``seconds``, or as soon as there is one after them, and whether the search came to an
    end of its own or by the clock. Ctrl-C ends it, with the best so far."""
    until = time.monotonic() + seconds
    best: Purchase | None = None
    ended = False
    with suppress(KeyboardInterrupt), Console(stderr=True).status("looking for the cheapest …") as status:
        for best in purchases(offers=question.offers, items=question.items):
            if best is not None:
                status.update(f"{question.money(best.price)} {question.unit}; Ctrl-C ends the search …")
                if time.monotonic() > until:
                    break
        ended = True
    return best, ended


def read_prices(path: Path) -> PriceList:
    """Raises InvalidInputError with the path of the first field that is wrong."""
    found = list(objects_of(path))
    if len(found) != 1:
        raise InvalidInputError(field="--prices", value=str(path), allowed="it holds one price list")
    try:
        listed = PriceList.model_validate(mapping(found[0], "prices"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "prices"
        raise InvalidInputError(field=f"--prices: {where}", value=first["input"], allowed=first["msg"]) from error
    for node in listed.nodes:
        if node.product not in PRODUCTS:
            allowed = f"it is one of {', '.join(PRODUCTS)}"
            raise InvalidInputError(field=f"--prices: {node.name}.product", value=node.product, allowed=allowed)
    twice = [name for name, count in Counter(node.name for node in listed.nodes).items() if count > 1]
    if twice:
        raise InvalidInputError(field="--prices: nodes.name", value=twice[0], allowed="each name is listed once")
    return listed


def _question(manifests: Manifests, listed: PriceList, read: Read) -> _Question:
    """Sized by the operator's own code, as on a cluster that has one node of each kind."""
    snapshot = planned(fleet_snapshot(_one_of_each(listed), now=time.time()), manifests, read=read)
    settings = Settings(hub_token_namespaces=frozenset(model.namespace for model in snapshot.models))
    stock = inventory(snapshot)
    eligible = Eligibility(snapshot)
    hosts = tuple(host for each in stock.hosts.values() for host in each)
    pools = {pool.name: pool for pool in snapshot.pools}
    items: list[Item] = []
    for case in cases(snapshot, settings, stock=stock):
        if isinstance(case.sized, Blocked):
            raise InvalidInputError(field=case.model.key, value=case.sized.reason, allowed=case.sized.message)
        pool = pools.get(case.pool, pools["default"])
        one = prospect(case, case.sized, pool, hosts, eligible)
        items += [replace(one, key=f"{case.model.key}-{number}", rank=1) for number in range(case.replicas)]
    priced = {node.name: node for node in listed.nodes}
    digits, told = _decimals(listed, many=len(items))
    offers = tuple(
        Offer(host=host, price=round(_exact(priced[host.name]) * 10**digits), most=priced[host.name].most)
        for host in hosts
    )
    return _Question(offers=offers, items=tuple(items), unit=listed.unit, digits=digits, told=told)


def _decimals(listed: PriceList, *, many: int) -> tuple[int, int]:
    """In how many decimals prices are counted: all that they have, as far as ``many`` nodes are still a number of the
    packer; and how many are told. Raises InvalidInputError where that leaves too little of the lowest price."""
    dearest = max(listed.nodes, key=lambda node: node.price)
    lowest = min(node.price for node in listed.nodes)
    enough = max(_DIGITS, _DIGITS - floor(log10(lowest)) - 1)
    written = max(len(f"{_exact(node):f}".partition(".")[2]) for node in listed.nodes)
    room = floor(log10(_COUNTED / (dearest.price * max(many, 1))))
    if room < enough:
        allowed = (
            f"beside a price of {lowest:g} that of {counted(many, 'node')} can't be counted: leave one of them out"
        )
        raise InvalidInputError(field=f"--prices: {dearest.name}.price", value=dearest.price, allowed=allowed)
    return min(max(enough, written), room), max(2, enough - 2 if enough > _DIGITS else 0)


def _exact(node: PricedNode) -> Decimal:
    """Its price as it is written."""
    return Decimal(repr(node.price))


def _one_of_each(listed: PriceList) -> Fleet:
    return Fleet(nodes=tuple(node.model_copy(update={"count": 1}) for node in listed.nodes))


def _to_json(question: _Question, best: Purchase | None) -> dict[str, Any]:
    if best is None:
        return {"fits": False}
    return {
        "fits": True,
        "nodes": dict(best.counts),
        "price": question.price(best.price),
        "unit": question.unit,
        "least": question.price(best.least),
        "placements": [
            {"replica": each.item.key, "node": each.host, "gpus": len(each.devices), "bytes": each.item.memory}
            for each in best.packing.placed
        ],
    }


def _words(question: _Question, best: Purchase | None) -> Iterator[str]:
    if best is None:
        yield "no set of these nodes holds all of the models"
        return
    yield f"{question.money(best.price)} {question.unit} for {counted(len(question.items), 'replica')}".replace(
        "  ", " "
    )
    if best.price <= best.least:
        yield "proven: no set costs less"
    else:
        yield f"no set costs less than {question.money(best.least)} {question.unit}"


def _picture(question: _Question, best: Purchase | None) -> Iterator[Any]:
    if best is not None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (("node", "left"), ("count", "right"), ("price", "right"), ("replicas", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        on = Counter(each.host.rpartition("-")[0] for each in best.packing.placed)
        price = {offer.name: offer.price for offer in question.offers}
        for name, count in best.counts.items():
            table.add_row(name, str(count), question.money(price[name] * count), str(on[name]))
        yield table
    yield from map(Text, _words(question, best))


def _markdown(question: _Question, best: Purchase | None) -> Iterator[str]:
    first, *rest = _words(question, best)
    yield f"### vrampack plan: {first}"
    if best is not None:
        yield "\n| node | count |\n| --- | --- |"
        yield from (f"| {name} | {count} |" for name, count in best.counts.items())
    yield ""
    yield from rest
