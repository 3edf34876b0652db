"""Words of captions and the AudioSet labels that they may mean: hand-made tables for pipeline/quality/tag_consistency.py.

Labels are AudioSet's display names (and two of ESC-50's: rooster, mouse click), joined by "|" because many hold commas;
a vocabulary that lacks a label passes over it. Words are in their base form, phrases joined by ", ":
`tag_consistency.stem` finds their inflections.
"""

# Words that may stand inside a phrase: "birds are chirping", "the crash of waves".
SKIPPED = frozenset(
    ("a", "an", "the", "is", "are", "was", "be", "being", "been", "of", "it", "its", "his", "her", "their", "some", "that",
     "which", "etc", "s")
)  # fmt: skip

# Words that no rule reduces.
IRREGULAR = {
    "children": "child", "men": "man", "women": "woman", "mice": "mouse", "geese": "goose", "leaves": "leaf",
    "wolves": "wolf", "hooves": "hoof", "buses": "bus", "shoes": "shoe", "spoke": "speak", "spoken": "speak",
    "sang": "sing", "sung": "sing", "rang": "ring", "rung": "ring", "blew": "blow", "blown": "blow", "drove": "drive",
    "driven": "drive", "ran": "run", "said": "say", "shaken": "shake", "broken": "break", "wooden": "wood",
    "breathe": "breath", "breathes": "breath", "tore": "tear", "flew": "fly", "shot": "shoot", "scrapping": "scrape",
    "opening": "open", "ceiling": "ceiling", "building": "building", "evening": "evening", "morning": "morning",
    "something": "something", "during": "during",
}  # fmt: skip

# Words -> the label they accuse, then the labels that may be behind them as well.
EVENTS = {
    # voices and bodies
    "speak, talk, say, speech, converse, conversation, monologue, narrate, narration, narrator, announcer, announce, "
    "announcement, lecture, interview, murmur, mumble, discuss, voice": "Speech",
    "man speak, man talk, man say, male voice, male speak, male talk, male speech, boy speak, boy talk, guy talk, "
    "he speak, he talk, man narrate": "Male speech, man speaking",
    "woman speak, woman talk, woman say, female voice, female speak, female talk, female speech, girl speak, girl talk, "
    "lady speak, lady talk, she speak, she talk, woman narrate": "Female speech, woman speaking",
    "child speak, child talk, kid speak, kid talk, toddler talk, child voice": "Child speech, kid speaking",
    "yell, shout, holler": "Shout",
    "scream, shriek": "Screaming",
    "laugh, laughter, giggle, chuckle, snicker": "Laughter",
    "baby laugh, infant laugh, baby giggle": "Baby laughter",
    "cry, sob, weep": "Crying, sobbing",
    "baby cry, infant cry, baby wail, infant wail, toddler cry": "Baby cry, infant cry",
    "sing, singer, vocalist": "Singing|Music",
    "man sing": "Male singing",
    "woman sing": "Female singing",
    "child sing": "Child singing",
    "sniff, sniffle": "Sniff",
    "burp, belch": "Burping, eructation",
    "heart, heart beat": "Heart sounds, heartbeat",
    "footstep, walk": "Walk, footsteps",
    "clap, applaud, applause": "Applause|Clapping",
    "crowd, audience": "Crowd",
    # animals
    "dog, puppy": "Dog",
    "cat, kitten": "Cat",
    "meow, mew": "Meow",
    "horse, pony": "Horse",
    "gallop, trot, clop, clip clop": "Clip-clop",
    "cow, cattle": "Cattle, bovinae",
    "pig, piglet, hog, boar": "Pig",
    "sheep, lamb": "Sheep",
    "bleat, baa": "Bleat|Goat|Sheep",
    "chicken, hen, rooster": "Chicken, rooster",
    "rooster crow": "Crowing, cock-a-doodle-doo|rooster",
    "duck": "Duck",
    "bird, bird sing": "Bird",
    "tweet": "Chirp, tweet|Bird",
    "crow": "Crow|Crowing, cock-a-doodle-doo",
    "caw": "Caw|Bird",
    "coo": "Coo|Bird|Baby laughter|Babbling",
    "frog, toad": "Frog",
    "insect, bug, insect sing": "Insect",
    "bee, wasp": "Bee, wasp, etc.",
    "lion, tiger": "Roaring cats (lions, tigers)",
    "wolf": "Canidae, dogs, wolves",
    # music
    "music, melody, song": "Music|Singing",
    "drum": "Drum|Percussion",
    "violin": "Violin, fiddle",
    "flute": "Flute",
    "trumpet": "Trumpet",
    "bell": "Bell|Alarm|Telephone|Doorbell|Clock|Train",
    # weather, water, fire
    "wind, gust": "Wind",
    "rain, rainfall": "Rain",
    "thunder, thunderstorm": "Thunder|Thunderstorm",
    "water": "Water|Liquid|Sink (filling or washing)|Water tap, faucet|Toilet flush|Bathtub (filling or washing)|"
    "Boat, Water vehicle",
    "faucet": "Water tap, faucet",
    "toilet": "Toilet flush",
    "ocean, sea": "Ocean",
    "stream, brook, creek, river": "Stream",
    "fire crackle, crackle fire, campfire, fireplace, bonfire": "Fire",
    # vehicles
    "car, automobile": "Car|Vehicle",
    "race car": "Race car, auto racing",
    "truck": "Truck|Vehicle",
    "bus": "Bus|Vehicle",
    "motorcycle, motorbike": "Motorcycle|Vehicle|Engine",
    "traffic": "Traffic noise, roadway noise|Vehicle",
    "train, locomotive": "Train|Rail transport",
    "subway": "Subway, metro, underground",
    "boat": "Boat, Water vehicle",
    "airplane, plane, jet": "Fixed-wing aircraft, airplane|Aircraft|Jet engine",
    "engine, motor": "Engine|Vehicle",
    "lawn mower, lawnmower": "Lawn mower",
    "horn": "Vehicle horn, car horn, honking|Vehicle|Alarm|Brass instrument",
    "honk": "Vehicle horn, car horn, honking|Vehicle|Goose",
    "siren": "Siren|Emergency vehicle|Alarm",
    "fire truck, fire engine, firetruck": "Fire engine, fire truck (siren)",
    # things
    "telephone, phone": "Telephone",
    "dial tone, telephone dial tone, phone dial tone": "Dial tone|Telephone",
    "touch tone dial, tone dial, touch tone": "Telephone dialing, DTMF",
    "busy tone": "Busy signal",
    "clock": "Clock|Tick|Tick-tock",
    "tick tock, ticktock": "Tick-tock|Clock",
    "type, keyboard": "Typing|Computer keyboard|Keyboard (musical)",
    "mouse click": "mouse click|Typing|Clicking",
    "vacuum": "Vacuum cleaner",
    "saw": "Sawing",
    "gun, gunshot, gunfire, rifle, gun shoot": "Gunshot, gunfire",
    "explosion, explode": "Explosion",
    "firework": "Fireworks",
    "dish, plate, pan": "Dishes, pots, and pans",
    "fry, oil": "Frying (food)|Sizzle",
}

# Words that mention labels and agree with them, but mean too many things to accuse.
WEAK_EVIDENCE = {
    "man, male, boy, guy, he": "Male speech, man speaking|Male singing",
    "woman, female, girl, lady, she": "Female speech, woman speaking|Female singing",
    "child, kid, toddler": "Child speech, kid speaking|Child singing|Children playing|Children shouting",
    "baby, infant": "Baby cry, infant cry|Baby laughter",
    "chat, communicate, exclaim, verbalize, vocalize": "Speech",
    "step": "Walk, footsteps",
    "run": "Run",
    "fly": "Fly, housefly",
    "yelp, whine, whimper": "Whimper (dog)|Whimper|Crying, sobbing",
    "flock": "Bird",
    "swarm": "Bee, wasp, etc.|Insect",
    "hoof": "Clip-clop",
    "chirp": "Chirp, tweet|Bird|Insect|Frog|Chirp tone",
    "wolf whistle": "Whistling",
    "ring": "Bell|Telephone bell ringing|Alarm clock|Ringtone|Doorbell",
    "toll": "Church bell",
    "storm": "Thunderstorm|Rain|Wind",
    "blow": "Wind|Vehicle horn, car horn, honking|Train horn",
    "shore, beach": "Ocean|Waves, surf",
    "flow, rush, drain, bubble": "Stream|Water|Sink (filling or washing)",
    "flush": "Toilet flush",
    "drive, accelerate, rev, speed, idle, decelerate": "Vehicle|Engine",
    "bike": "Bicycle|Motorcycle",
    "toy": "Vehicle",
    "chug": "Engine|Train",
    "sputter": "Engine",
    "track, railroad": "Rail transport",
    "steam engine": "Steam|Train|Engine",
    "blade, rotor, propeller": "Helicopter|Propeller, airscrew|Aircraft",
    "machine, machinery, appliance, device": "Mechanisms|Tools|Engine|Sewing machine|Power tool",
    "computer mouse": "Typing|Clicking",
    "cuckoo clock, coo clock": "Clock",
    "vibrate": "Vibration",
    "dial": "Telephone dialing, DTMF",
    "busy": "Busy signal",
    "tone": "Sine wave|Chirp tone|Dial tone|Busy signal",
    "static, hiss, noise": "Noise|Static|White noise|Pink noise",
    "clank, clack, clink, clunk": "Clang|Clatter|Dishes, pots, and pans|Clickety-clack|Chink, clink",
    "utensil": "Cutlery, silverware",
    "cook": "Frying (food)",
    "brush": "Toothbrush",
    "sand": "Sanding",
    "hammer": "Hammer|Knock",
    "shoot, fire": "Gunshot, gunfire|Fire",
    "blast": "Explosion|Train horn",
}

# Labels that name how something sounds, or whose word means too many things: mentioned, never foreign.
AMBIGUOUS = (
    # impacts, contacts, onomatopoeia and tones: the ontology calls them source-ambiguous
    "Bang|Slap, smack|Whack, thwack|Smash, crash|Breaking|Bouncing|Knock|Tap|Whip|Flap|Thump, thud|Thunk|Scratch|"
    "Scrape|Rub|Roll|Crushing|Crumpling, crinkling|Tearing|Hiss|Creak|Rattle|Whoosh, swoosh, swish|Rustle|Whir|"
    "Clatter|Sizzle|Rumble|Plop|Jingle, tinkle|Hum|Squish|Zing|Boing|Crackle|Crunch|Crack|Beep, bleep|Ping|Ding|"
    "Clang|Chirp, tweet|Buzz|Squeak|Squeal|Clicking|Tick|Clickety-clack|Chime|Boom|Burst, pop|Eruption|"
    # without a source, of the channel, or from a loudspeaker
    "Silence|Sound effect|Pulse|Sine wave|Harmonic|Chirp tone|Noise|Static|Mains hum|Distortion|Sidetone|Cacophony|"
    "White noise|Pink noise|Throbbing|Vibration|Echo|Television|Radio|"
    # voices and motions of many things
    "Humming|Roar|Howl|Growling|Whimper|Whimper (dog)|Wail, moan|Groan|Grunt|Sigh|Bellow|Whoop|Squawk|Snort|Pant|"
    "Run|Shuffle|Hands|Patter|Toot|Whistling|Whistle|Idling|Accelerating, revving, vroom|Engine starting|Chatter|"
    "Hubbub, speech noise, speech babble|Babbling|Conversation|Train wheels squealing|Skidding|Sliding door|Slam|"
    # matter, and names that are also everyday words
    "Wood|Glass|Liquid|Chink, clink|Splash, splatter|Slosh|Drip|Pour|Trickle, dribble|Gush|Fill (with liquid)|Spray|"
    "Pump (liquid)|Stir|Boiling|Gurgling|Steam|Chop|Splinter|Shatter|Tools|Mechanisms|Gears|Arrow|Camera|Sampler|"
    "Light engine (high frequency)|Medium engine (mid frequency)|Heavy engine (low frequency)|Effects unit|Country|"
    "Writing|Fly, housefly|Filing (rasp)|Organ|Tuning fork|Rattle (instrument)|Wind noise (microphone)|Rustling leaves"
)

# Labels that taggers leave out beside louder sounds: foreign only where the caption agrees with no tag.
BACKGROUND = (
    "Speech|Male speech, man speaking|Female speech, woman speaking|Child speech, kid speaking|Narration, monologue|"
    "Shout|Yell|Screaming|Whispering|Children shouting|Children playing|Laughter|Baby laughter|Giggle|Snicker|"
    "Belly laugh|Chuckle, chortle|Crying, sobbing|Singing|Male singing|Female singing|Child singing|Breathing|Gasp|"
    "Cough|Throat clearing|Sniff|Chewing, mastication|Biting|Walk, footsteps|Clapping|Applause|Cheering|Crowd|"
    "Animal|Bird|Bird vocalization, bird call, bird song|Bird flight, flapping wings|Coo|Caw|Hoot|"
    "Crowing, cock-a-doodle-doo|Insect|Cricket|Music|Musical instrument|Guitar|Strum|Piano|Drum|Percussion|Rock music|"
    "Pop music|Background music|Bell|"
    "Wind|Thunder|Rain|Raindrop|Rain on surface|Water|Stream|Ocean|Waves, surf|Fire|Water tap, faucet|"
    "Vehicle|Motor vehicle (road)|Car|Car passing by|Truck|Traffic noise, roadway noise|Boat, Water vehicle|Aircraft|Engine|"
    "Vehicle horn, car horn, honking|Alarm|Door|Clock|Dishes, pots, and pans|Frying (food)|Typing|Hammer|Sawing|"
    "Gunshot, gunfire|Explosion"
)

# Where it was recorded: no caption is expected to say it, so neither foreign nor unmentioned.
AMBIENCE = (
    "Inside, small room|Inside, large room or hall|Inside, public space|Outside, urban or manmade|"
    "Outside, rural or natural|Reverberation|Field recording|Environmental noise"
)

# In so many clips that sharing them is no sign of agreement.
UBIQUITOUS = (
    "Speech|Male speech, man speaking|Female speech, woman speaking|Child speech, kid speaking|Conversation|"
    "Narration, monologue|Music"
)

# Labels that come with each of their descendants as a matter of course: beside one, they explain no other.
SUPERCLASSES = (
    "Animal|Domestic animals, pets|Livestock, farm animals, working animals|Wild animals|Fowl|Vehicle|"
    "Motor vehicle (road)|Water|Liquid|Tools|Music|Musical instrument"
)

# What listeners take for one another, or hear in one another: each member of a group explains the other members;
# descendants included. Two labels of one member stay strangers.
CONFUSABLE_GROUPS = (
    ("Singing|Humming", "Music"),
    ("Speech", "Shout|Screaming|Whispering", "Crowd|Chatter|Hubbub, speech noise, speech babble|Cheering"),
    ("Applause", "Clapping", "Cheering", "Crowd"),
    ("Crying, sobbing", "Whimper|Wail, moan", "Screaming"),
    ("Burping, eructation", "Growling|Groan|Grunt", "Hiccup|Gargling|Stomach rumble"),
    ("Snoring", "Breathing|Snort|Pant", "Oink|Growling|Grunt"),
    ("Dog", "Canidae, dogs, wolves", "Whimper"),
    ("Bird", "Fowl", "Chirp, tweet"),
    ("Goat", "Sheep"),
    ("Insect", "Buzz", "Hum"),
    ("Stream", "Waterfall", "Gurgling", "Ocean", "Rain", "Rowboat, canoe, kayak"),
    (
        "Water",
        "Liquid",
        "Water tap, faucet",
        "Sink (filling or washing)",
        "Bathtub (filling or washing)",
        "Toilet flush",
    ),
    ("Water", "Boat, Water vehicle"),
    ("Rain", "Thunderstorm", "Drip|Patter"),
    ("Wind", "Noise|Static|White noise|Pink noise"),
    ("Steam|Boiling", "Hiss|Spray|Whoosh, swoosh, swish", "Steam whistle|Train whistle"),
    ("Frying (food)", "Sizzle", "Stir|Boiling", "Hiss|Crackle"),
    ("Fire", "Crackle|Crack"),
    ("Vehicle", "Engine"),
    ("Engine", "Vibration|White noise|Pink noise|Throbbing|Hum|Rumble|Mains hum", "Power tool", "Sewing machine"),
    (
        "Engine",
        "Vacuum cleaner|Hair dryer|Blender|Microwave oven|Mechanical fan|Electric shaver, electric razor",
        "Tools",
    ),
    ("Power tool", "Light engine (high frequency)", "Tools", "Vacuum cleaner|Blender|Electric shaver, electric razor"),
    ("Filing (rasp)", "Sanding", "Sawing", "Rub", "Scrape", "Scratch", "Wood"),
    ("Wood", "Tools", "Chop"),
    ("Race car, auto racing", "Accelerating, revving, vroom", "Motorcycle"),
    ("Skidding", "Tire squeal", "Squeal"),
    ("Vehicle horn, car horn, honking", "Air horn, truck horn", "Train horn", "Foghorn", "Toot"),
    ("Foghorn", "Boat, Water vehicle"),
    ("Rail transport", "Clickety-clack", "Steam whistle", "Steam"),
    ("Siren", "Emergency vehicle", "Alarm"),
    ("Telephone", "Bell", "Alarm clock"),
    ("Beep, bleep", "Alarm", "Sine wave|Ping|Ding"),
    ("Bell", "Chime", "Ding-dong|Ding|Jingle, tinkle|Clang"),
    ("Clock", "Clicking", "Tick|Tick-tock"),
    ("Typing", "Clicking"),
    ("Door", "Slam|Knock|Creak|Squeak", "Cupboard open or close|Drawer open or close|Sliding door"),
    (
        "Dishes, pots, and pans",
        "Cutlery, silverware",
        "Glass",
        "Clang|Clatter|Ping|Ding",
        "Coin (dropping)|Keys jangling",
    ),
    ("Gunshot, gunfire", "Fireworks", "Burst, pop", "Boom|Bang|Eruption", "Thunder"),
)
