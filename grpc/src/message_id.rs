//! What names a message everywhere in the mesh, as text: `ORIGIN/NUMBER/TOPIC`.

use std::fmt::Write;

use nexusd_wire::NodeId;

/// The parts of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageId<'a> {
    /// The node that accepted the message.
    pub(crate) origin: NodeId,
    /// The number that it gave it within its topic.
    pub(crate) number: u64,
    /// The topic.
    pub(crate) topic: &'a str,
}

impl<'a> MessageId<'a> {
    /// `None`: that is no name of a message.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (origin, rest) = text.split_once('/')?;
        let (number, topic) = rest.split_once('/')?;
        let is_whole = origin.len() == 32 && nexusd_wire::check_topic(topic).is_ok();
        Some(Self {
            origin: NodeId(u128::from_str_radix(origin, 16).ok().filter(|_| is_whole)?),
            number: number.parse().ok()?,
            topic,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(32 + 1 + 20 + 1 + self.topic.len());
        // Writing to a string cannot fail.
        let _ = write!(text, "{}/{}/{}", self.origin, self.number, self.topic);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let id = MessageId { origin: NodeId(0xabc), number: 7, topic: "plant/boiler/7" };
        assert_eq!(id.text(), "00000000000000000000000000000abc/7/plant/boiler/7");
        assert_eq!(MessageId::parse(&id.text()), Some(id));
    }

    #[test]
    fn what_names_no_message_is_told() {
        let node = "00000000000000000000000000000abc";
        for text in [
            "".to_owned(),
            "7".to_owned(),
            "abc/7/topic".to_owned(),
            format!("{node}/7"),
            format!("{node}/x/topic"),
            format!("{node}/-1/topic"),
            format!("{node}/7/"),
            format!("{node}/7/a+b/#"),
            format!("{}/7/topic", "g".repeat(32)),
            format!("{}/7/topic", "é".repeat(16)),
        ] {
            assert_eq!(MessageId::parse(&text), None, "{text}");
        }
    }
}
