"""Words that have nothing to do with defects: a type whose words are no nearer than these has no name to give."""

from __future__ import annotations

import math

_TEXT = """
accordion, acrobat, airport, alligator, ambulance, anchor, antelope, aquarium, archer, armchair, astronaut, avocado,
baker, ballerina, banana, banjo, barn, baseball player, basketball, bathtub, beach, bear, beaver, bedroom, bell tower,
bicycle, binoculars, birthday cake, bison, blacksmith, boat, bookshelf, bowling alley, boxer, bride, bridge, broccoli,
buffalo, bulldozer, bus, butcher, cabbage, cactus, camel, campsite, candle, canoe, castle, cat, cathedral, cello, chair,
cheetah, cherry, chess player, chicken, chimney, choir, church, cinema, circus, clarinet, classroom, clown, coconut,
concert, cook, cow, cowboy, crab, crocodile, crown, cruise ship, cucumber, cyclist, dancer, deer, dentist, desert, desk,
dinosaur, diver, doctor, dog, dolphin, donkey, drum, duck, eagle, eggplant, elephant, elevator, engineer, falcon, farm,
farmer, ferry, fire truck, firefighter, fisherman, flamingo, florist, flute, football stadium, forest, fountain, fox,
frog, garden, garlic, giraffe, glacier, goat, golfer, gorilla, grandmother, grapefruit, greenhouse, guitar, gymnast,
hairdresser, hamburger, hamster, harbour, harp, hat, hedgehog, helicopter, hen, hippopotamus, hockey player, horse,
hospital, hotel, hot air balloon, hummingbird, hyena, igloo, island, jacket, jaguar, jellyfish, jockey, judge, juggler,
jungle, kangaroo, karate fighter, kettle, king, kitchen, kitten, koala, lamb, lantern, lawyer, lemon, leopard, library,
lifeguard, lighthouse, lion, lizard, llama, lobster, locomotive, luggage, mandolin, mango, market, mechanic, meadow,
microphone, monastery, monkey, moose, mosque, motorcycle, mountain, mule, museum, musician, nurse, oak tree, ocean,
octopus, office, opera house, orange, orchestra, orchid, ostrich, otter, owl, palace, palm tree, panda, parade, park,
parrot, pastor, peach, peacock, pear, pelican, penguin, pheasant, photographer, piano, picnic, pig, pigeon, pilot,
pineapple, pirate, pizza, playground, plumber, policeman, pony, poppy, porcupine, postman, potato, priest, prince,
princess, pumpkin, puppy, pyramid, queen, rabbit, raccoon, racing car, radio, raspberry, referee, refrigerator,
restaurant, rhinoceros, robin, rocket, rooster, rowing boat, runner, saddle, sailor, salad, sandwich, saxophone, school,
scientist, scooter, seagull, seal, shark, sheep, shepherd, shirt, shoe, singer, skateboard, skier, skyscraper, sled,
snowman, sofa, soldier, spectator, squid, squirrel, stable, statue, strawberry, submarine, suitcase, sunflower,
supermarket, surfer, swan, swimmer, tailor, tambourine, taxi, teacher, teapot, telephone, temple, tennis player, tent,
theatre, tiger,
toaster, toddler, tomato, tractor, train, trombone, truck, trumpet, tulip, turkey, turtle, umbrella, university, vase,
village, vineyard, violin, volcano, vulture, waiter, walrus, watermelon, wedding, whale, wheelchair, windmill, witch,
wizard, wolf, woodpecker, yacht, zebra, zoo
"""

CONTROL_WORDS: tuple[str, ...] = tuple(sorted({" ".join(word.split()) for word in _TEXT.split(",")}))
"""Nouns, without an article."""


def control_phrases() -> tuple[str, ...]:
    """Give every other control word an article, as phrases of types come with one and without."""
    with_article = (f"{'an' if word[0] in 'aeio' else 'a'} {word}" for word in CONTROL_WORDS[::2])
    return (*with_article, *CONTROL_WORDS[1::2])


def chance_p_value(ahead: int, controls: int, types: int) -> float:
    """Compute how often words without meaning have their best type behind at most so many control words.

    Types and control words are then in any order with equal chance: it is the chance that not all of the first
    ``ahead`` + 1 places are control words'.

    Examples:
        >>> round(chance_p_value(0, 19, 1), 12), round(chance_p_value(9, 199, 1), 12)
        (0.05, 0.05)
        >>> chance_p_value(19, 19, 1)
        1.0
    """
    if ahead >= controls:
        return 1.0
    return 1 - math.prod((controls - place) / (types + controls - place) for place in range(ahead + 1))


def most_types(controls: int, level: float) -> int:
    """Count the types of which one can still be named at a level, where no control word is ahead of it.

    Examples:
        >>> most_types(190, 0.05)
        10
    """
    return int(level * controls / (1 - level) + 1e-9)
