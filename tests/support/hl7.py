"""Inbound HL7 messages as EHRs and interface engines write them."""

from __future__ import annotations

from collections.abc import Sequence


def segment(name: str, fields: dict[int, str], bar: str = "|") -> str:
    """A segment from its fields by number."""
    return bar.join((name, *(fields.get(number, "") for number in range(1, max(fields) + 1))))


EPIC_ORM = (
    r"MSH|^~\&|EPIC|UHOSP|HILUM|RAD|20261124083011|JDOE|ORM^O01|8124553|P|2.3",
    "PID|1||E4477^^^EPI^MR~900127^^^NAT^NI||GARCIA-LOPEZ^MARÍA^T^^^^L||19620317|F|||12 MAIN ST^^MADISON^WI^53703|||||||778231",
    segment("PV1", {1: "1", 2: "E", 3: "ED^12^A^UHOSP", 19: "V5512^^^EPI"}),
    "AL1|1|DA|1001^IODINATED CONTRAST^ELG|SEVERE|HIVES",
    "ORC|NW|445566^EPC|A20261124^RIS||||^^^20261124083000^^S||20261124083000|JDOE^DOE^JANE||77001^HOUSE^GREGORY^^^^MD",
    segment(
        "OBR",
        {
            1: "1",
            2: "445566^EPC",
            3: "A20261124^RIS",
            4: "IMG182^MRI BRAIN W/O CONTRAST^EAP",
            16: "77001^HOUSE^GREGORY",
            18: "A20261124",
            24: "MR",
            27: "^^^20261124083000^^S",
            30: "WALK",
            31: r"R51^Headache \T\ nausea^I10",
        },
    ),
    "ZDS|1.2.840.113619.2.1^EPIC^Application^DICOM",
)
"""HL7 2.3 without a message structure; STAT in the sixth component of ORC-7 and OBR-27; allergies; Z-segment at the end."""

CERNER_OMG = (
    r"MSH|^~\&|CERNER|MEM|HILUM|RAD|202611240830-0600||OMG^O19^OMG_O19|Q332211|P|2.5.1|||AL|NE||UNICODE UTF-8",
    "PID|1|900|0012345^^^MEM&2.16.840.1.113883.3.1&ISO^MR||O'Neil^Siobhán^^^^^L||196203170000|F",
    "PV1|1|I|4W^401^1^MEM",
    "ORC|NW|99001^CERNER||  ||||||||1^Who^Doctor",
    "TQ1|1||||||||A^ASAP^HL70485",
    segment(
        "OBR",
        {
            1: "1",
            2: "99001^CERNER",
            3: "CR7788^RAD",
            4: "70551^MR Head^C4^MRHEAD^MRI Head^L",
            13: "pain behind the eye",
            16: "1^Who^Doctor",
            20: "CR7788",
        },
    ),
)
"""HL7 2.5.1 with a zone in MSH-7 without seconds, priority in TQ1, alternate code, reason in OBR-13."""

IHE_OMI = (
    r"MSH|^~\&|RIS|KH|HILUM|KH|20261124083011.123+0100||OMI^O23^OMI_O23|00042|P|2.5.1|||||DEU|8859/1",
    "PID|||4711^^^KH^PI||Müller^Jürgen^^^Dr.^^L||19501231|M",
    "PV1||O",
    "ORC|NW|P1^OPLACER|F1^OFILLER",
    "TQ1|1||||||20261124||R",
    "OBR|1|P1^OPLACER|F1^OFILLER|CTTHX^CT Thorax^KH",
    "IPC|ACC-9|RP-9|1.2.276.0.7230010.3.1.2.9|SPS-9|CT",
)
"""IHE RAD-4 in HL7 2.5.1: accession number, requested procedure and Study Instance UID in IPC."""

MIRTH_ORM = (
    "FHS|^~\\&|MIRTH",
    "BHS|^~\\&|MIRTH",
    r"MSH|^~\&|MIRTH^1.2.3^ISO|LAB||RAD|20261124||ORM^O01|b-1|P|2.4",
    "ZPI|1|whatever",
    "OBR|1|77^M|88^M|XR1^Chest^L|S",
    "ORC|NW|77^M|88^M",
    "PID|1||55||Smith^Anna",
    "NTE|1||a note",
    "OBR|2|78^M|89^M|CT1^Head^L",
    "ORC|NW|78^M|89^M||||^^^^^URGENT",
    "BTS|1",
    "FTS|1",
)
"""A batch; segments in the wrong order, unknown ones between them, two orders, no authority, priority in OBR-5."""

ORION_ORM = (
    "MSH!@%#$!ORION!HOSP!!!20261124083000!!ORM@O01!X#F#1!P!2.3.1",
    "PID!!!77@@@HOSP!!Meier@Hans$Sub",
    "ORC!XO!1@A!2@B!!IP",
    segment("OBR", {2: "1@A", 3: "2@B", 4: "K1@Knee #F# hip@L", 18: "ACC", 27: "1@@@@@S"}, "!"),
)
"""Delimiters of its own: `!` between fields, `@` components, `%` repetitions, `#` escapes, `$` subcomponents."""


def hl7(lines: Sequence[str]) -> str:
    """The message of these segments."""
    return "\r".join(lines) + "\r"


def order(
    control_id: str = "1",
    *,
    patient: str = "P1^^^HOSP^MR",
    name: str = "Wang^XiaoDong^^^^^L^A~王^小東^^^^^L^I",
    birth_date: str = "19800101",
    accession: str = "A1",
    placer: str = "PL1^EHR",
    filler: str = "FL1^RIS",
    code: str = "MRHEAD^MR head^L",
    modality: str = "",
    priority: str = "R",
    control: str = "NW",
    time: str = "20261124080000",
    charset: str = "UNICODE UTF-8",
) -> str:
    """An ORM^O01."""
    return hl7(
        (
            rf"MSH|^~\&|EHR|HOSP|HILUM||{time}||ORM^O01|{control_id}|P|2.5.1||||||{charset}",
            f"PID|1||{patient}||{name}||{birth_date}|M",
            segment("PV1", {1: "1", 2: "I", 3: "W1^R2^B3", 19: "V77^^^HOSP"}),
            f"ORC|{control}|{placer}|{filler}||||^^^^^{priority}",
            segment(
                "OBR",
                {
                    1: "1",
                    2: placer,
                    3: filler,
                    4: code,
                    18: accession,
                    19: "RP1",
                    24: modality,
                    27: f"^^^^^{priority}",
                    31: "R51^Headache^I10",
                },
            ),
        )
    )


def adt(
    event: str,
    control_id: str,
    *,
    patient: str = "P1^^^HOSP^MR",
    prior: str = "",
    name: str = "Wang^XiaoDong^^^^^L^A~王^小東^^^^^L^I",
    birth_date: str = "19800101",
    time: str = "20261124090000",
) -> str:
    """An ADT message: an update, or with `prior` a merge."""
    merge = (f"MRG|{prior}",) if prior else ()
    return hl7(
        (
            rf"MSH|^~\&|EHR|HOSP|HILUM||{time}||ADT^{event}|{control_id}|P|2.5.1||||||UNICODE UTF-8",
            f"EVN||{time}",
            f"PID|1||{patient}||{name}||{birth_date}|M",
            *merge,
        )
    )


def report(control_id: str = "R1", *, accession: str = "A1", status: str = "F", time: str = "20261124120000") -> str:
    """An ORU^R01 as a RIS sends it when the radiologist has signed."""
    return hl7(
        (
            rf"MSH|^~\&|RIS|HOSP|HILUM||{time}||ORU^R01|{control_id}|P|2.3.1",
            "PID|1||P1^^^HOSP^MR||Wang^XiaoDong||19800101|M",
            "ORC|RE|PL1^EHR|FL1^RIS",
            segment(
                "OBR",
                {
                    1: "1",
                    2: "PL1^EHR",
                    3: "FL1^RIS",
                    4: "MRHEAD^MR head^L",
                    18: accession,
                    22: time,
                    24: "MR",
                    25: status,
                },
            ),
            f"OBX|1|TX|59776-5^Findings^LN||No acute finding.||||||{status}",
        )
    )
