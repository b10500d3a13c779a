"""Facts the pocket models learn, most common first. How common a fact is decides how often training shows it."""

CAPITALS = dict(
    pair.split(":")
    for pair in (
        "France:Paris|England:London|Italy:Rome|Germany:Berlin|Spain:Madrid|Japan:Tokyo|China:Beijing|Russia:Moscow|"
        "Egypt:Cairo|Greece:Athens|India:New Delhi|Canada:Ottawa|Ireland:Dublin|Austria:Vienna|Portugal:Lisbon|"
        "Poland:Warsaw|Sweden:Stockholm|Norway:Oslo|Denmark:Copenhagen|Finland:Helsinki|Belgium:Brussels|"
        "Mexico:Mexico City|Brazil:Brasilia|Argentina:Buenos Aires|Cuba:Havana|Turkey:Ankara|Hungary:Budapest|"
        "Switzerland:Bern|Australia:Canberra|Peru:Lima|Chile:Santiago|Colombia:Bogota|Kenya:Nairobi|Iran:Tehran|"
        "Iraq:Baghdad|Thailand:Bangkok|Vietnam:Hanoi|Ukraine:Kyiv|Romania:Bucharest|Bulgaria:Sofia|Serbia:Belgrade|"
        "Croatia:Zagreb|Iceland:Reykjavik|Morocco:Rabat|Nigeria:Abuja|Ghana:Accra|Ethiopia:Addis Ababa|Nepal:Kathmandu|"
        "Pakistan:Islamabad|Bangladesh:Dhaka|Indonesia:Jakarta|Malaysia:Kuala Lumpur|Venezuela:Caracas|Ecuador:Quito|"
        "Bolivia:Sucre|Uruguay:Montevideo|Paraguay:Asuncion|Jamaica:Kingston|Panama:Panama City|Tunisia:Tunis|"
        "Algeria:Algiers|Libya:Tripoli|Sudan:Khartoum|Senegal:Dakar|Uganda:Kampala|Rwanda:Kigali|Angola:Luanda|"
        "Zambia:Lusaka|Mali:Bamako|Niger:Niamey|Latvia:Riga|Estonia:Tallinn|Lithuania:Vilnius|Slovakia:Bratislava|"
        "Slovenia:Ljubljana|Albania:Tirana|Armenia:Yerevan|Georgia:Tbilisi|Mongolia:Ulaanbaatar|Laos:Vientiane"
    ).split("|")
)
SYMBOLS = dict(
    pair.split(":")
    for pair in (
        "gold:Au|silver:Ag|iron:Fe|oxygen:O|hydrogen:H|carbon:C|copper:Cu|helium:He|nitrogen:N|sodium:Na|lead:Pb|"
        "calcium:Ca|chlorine:Cl|zinc:Zn|tin:Sn|sulfur:S|neon:Ne|mercury:Hg|nickel:Ni|iodine:I|potassium:K|uranium:U|"
        "aluminium:Al|silicon:Si|magnesium:Mg|platinum:Pt|phosphorus:P|lithium:Li|fluorine:F|titanium:Ti|argon:Ar|"
        "cobalt:Co|bromine:Br|chromium:Cr|manganese:Mn|radium:Ra|boron:B|arsenic:As|barium:Ba|tungsten:W|krypton:Kr|"
        "xenon:Xe|radon:Rn|cadmium:Cd|bismuth:Bi|antimony:Sb|caesium:Cs|strontium:Sr|beryllium:Be|gallium:Ga|"
        "selenium:Se|vanadium:V|plutonium:Pu|thorium:Th|iridium:Ir|osmium:Os|palladium:Pd|rhodium:Rh|indium:In|"
        "yttrium:Y|zirconium:Zr|niobium:Nb|tellurium:Te|hafnium:Hf"
    ).split("|")
)
