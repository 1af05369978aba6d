"""Words without a topic, such as "the", which are not worth a mark in an excerpt; in the languages of many documents.

The lists are short ones of our own: articles, pronouns, prepositions, auxiliaries and question words of three letters
and more. Words of a question are compared without case and accents.
"""

from __future__ import annotations

import unicodedata

__all__ = ["telling_words"]

_LISTS = {
    "Arabic": "من في على إلى عن هل ما ماذا متى أين كيف لماذا هذا هذه التي الذي هو هي كان كانت مع أو ثم",
    "Czech": "ale jak jaký jaká jaké jako jsou jsem byl byla bylo být kde kdo kdy nebo než pod pro proč při tak "
    "ten tato této tento toto který která které",
    "Danish": "den der det efter eller fra har hun hvad hvem hvilken hvilke hvor hvordan hvorfor hvornår ikke jeg "
    "kan med men når og også skal som til var ved vil",
    "Dutch": "aan als bij dan dat deze die dit door een heeft hebben hebt het hoe hun kan kunnen maar met naar "
    "niet ook onder over uit van voor waar waarom wanneer was wat welk welke werd wie wordt worden zijn",
    "English": "about after all and any are been before but can could did does for from had has have her his how "
    "into its may not of off our should than that the their them then there these they this those was "
    "were what when where which while who whom whose why will with would you your",
    "Finnish": "että eivät ja joka jotka kun kuka kuinka koska miksi milloin millainen missä mikä mitä miten mutta "
    "ne niin ole oli olla ovat se sekä tai tämä vai",
    "French": "aux avec ces cette comment dans depuis des dont elle elles est entre être les leur lors mais nous "
    "par pas pour pourquoi quand que quel quelle quelles quels qui quoi sans ses son sont sur une vous "
    "était été",
    "German": "als auch auf aus bei das dass dem den denn der des die dies diese dieser dieses durch ein eine einem "
    "einen einer eines für hat haben hatte ich ihr ihre ist kann können mit nach nicht noch nur oder sein "
    "sich sie sind über und uns unter vom von vor wann war waren warum was welche welcher welches wenn "
    "wer werden wie wird wo wurde wurden zum zur zwischen",
    "Greek": "και από για δεν είναι ένα ένας μια μία να που πώς πως πού πότε ποιος ποια ποιο στη στην στο στον της "
    "των την τον τους τις τα με σε γιατί ήταν",
    "Hebrew": "של על את אם מה מי מתי איפה איך למה הוא היא הם זה זו אשר עם או לא כי כל גם",
    "Hindi": "और का की के को में से है हैं था थे थी पर यह वह क्या कब कहाँ कैसे क्यों कौन नहीं एक भी तो लिए",
    "Hungarian": "amely azt ami aki csak egy ezt hogy hogyan hol ha is kell ki kik lehet lesz meg mely melyik mert mi "
    "mikor miért milyen mint nem után van vagy volt voltak",
    "Indonesian": "ada adalah apa apakah atau bagaimana berapa dan dari dengan dalam di ini itu kapan kepada mana "
    "mengapa oleh pada siapa tidak untuk yang",
    "Italian": "agli alla alle che chi come con cosa cui dal dalla dei del della delle dello dove gli era erano "
    "hanno nei nel nella nelle non per perché più quale quali quando quanto sono sua sue sugli sul sulla "
    "suo tra una uno",
    "Norwegian": "den der det eller etter fra har hun hva hvem hvilken hvilke hvor hvordan hvorfor ikke jeg kan med "
    "men når og også skal som til var ved vil",
    "Polish": "ale był była było być czy dla gdzie jak jaka jaki jakie jako jest kiedy kto która które który lub "
    "nad nie oraz pod przez przy się są także tak ten tej tego dlaczego",
    "Portuguese": "aos com como das dos ela ele eles era esta este foi foram mais mas nas nos não onde para pela pelas "
    "pelo pelos por porque porquê qual quais quando quanto que quem sem ser seu sua são sobre também tem "
    "uma",
    "Romanian": "care către când cât cine cum cu de din dar după este era fost fără lor mai nu pe pentru prin sau "
    "sunt unde unei unui unul va ce la",
    "Russian": "без был была было были быть все где для его если есть или как какая какие какой каков когда которая "
    "которые который кто куда между над них она они оно от под после почему при про сколько так также там "
    "только что чтобы чем это этот",
    "Spanish": "como con cuál cuáles cuando cuándo cuanto cuánto del desde donde dónde ella ellos entre era esta "
    "este esto fue fueron han hay las los más para pero por porque que qué quién quiénes ser sin sobre "
    "son sus también una unas unos",
    "Swedish": "att den det där efter eller från för har hon hur hvad inte jag kan med men när och också om ska som "
    "till under var varför vad vem vid vilka vilken vilket är",
    "Turkish": "ama bir bu değil için ile kadar kim hangi hangisi nasıl nasil ne neden nerede nedir olan olarak daha "
    "veya ya ve çok mi mı mu mü",
    "Ukrainian": "або був була було були бути від все вона вони воно для його коли котрий між над не після під при про "
    "скільки так також там тільки хто чому чи що щоб який яка яке які як",
}


def _folded(word: str) -> str:
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


_STOP_WORDS = {language: frozenset(map(_folded, words.split())) for language, words in _LISTS.items()}


def telling_words(words: set[str]) -> set[str]:
    """The words of a question that have a topic; all of them, if none has.

    Stop words are those of the language that has most of them in the question, or of several that have as many: "die"
    is an article in a German question, and none in an English one.

    Args:
        words: of the question.

    Example:
        >>> sorted(telling_words({"where", "did", "they", "die"}))
        ['die']
        >>> sorted(telling_words({"wie", "hoch", "ist", "die", "miete"}))
        ['hoch', 'miete']
        >>> sorted(telling_words({"the", "who"}))
        ['the', 'who']
    """
    folded = {word: _folded(word) for word in words}
    found = {language: {word for word in words if folded[word] in stop} for language, stop in _STOP_WORDS.items()}
    most = max(map(len, found.values()))
    without_topic = set().union(*(some for some in found.values() if len(some) == most))
    return words - without_topic or words
