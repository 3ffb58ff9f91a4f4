"""Sizes of road users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Body:
    """Outer size of a road user.

    Attributes:
        class_name: Its class in COCO.
        length_m: Along its heading.
        width_m: Across its heading, without mirrors.
        height_m: Above the road.
    """

    class_name: str
    length_m: float
    width_m: float
    height_m: float

    @property
    def is_person(self) -> bool:
        """Whether it is a person and not a vehicle."""
        return self.class_name == "person"


BODIES: Mapping[str, Body] = {
    "hatchback": Body("car", 4.02, 1.71, 1.43),
    "saloon": Body("car", 4.72, 1.84, 1.45),
    "estate": Body("car", 4.69, 1.83, 1.48),
    "suv": Body("car", 4.51, 1.85, 1.66),
    "minivan": Body("car", 4.53, 1.83, 1.66),
    "van": Body("truck", 5.30, 2.02, 2.36),
    "truck": Body("truck", 8.20, 2.50, 3.50),
    "bus": Body("bus", 12.00, 2.55, 3.10),
    "adult": Body("person", 0.60, 0.50, 1.80),
    "child": Body("person", 0.40, 0.32, 1.15),
}
"""The hatchback is the Global Vehicle Target of Euro NCAP (ISO 19206-3: 4.02 m long, 1.71 m wide, 1.43 m high), adult
and child are its pedestrian targets (ISO 19206-2: 1.80 m and 1.15 m tall). The others are rounded from data sheets of
typical European models: mid-size saloon and estate, compact SUV and minivan, delivery van with a high roof, 12-tonne
box truck, and a 12 m low-floor city bus (Directive 96/53/EC allows widths up to 2.55 m)."""
