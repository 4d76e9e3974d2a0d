//! The messages on the channel of changes, and whether one was missed.

use serde::Deserialize;

use crate::entry::Level;

/// One message. An emission has one number and one or more parts.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// The life of the database that it speaks of.
    pub generation: Option<String>,
    /// The number of the emission. A transaction that tells of itself has none.
    pub sequence: Option<i64>,
    /// Which part of the emission this is, from 1.
    pub part: Option<i64>,
    /// How many there are.
    pub parts: Option<i64>,
    /// The levels that changed, as they are now.
    pub levels: Vec<Level>,
    /// Where whoever saw all messages is now.
    pub cursor: Option<String>,
}

/// What a message means for whoever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// None was missed before it: its levels count, and its cursor.
    InOrder,
    /// It has no number: its levels count.
    Loose,
    /// One was missed, or it is of another life of the database: ask the database.
    Gap,
}

/// Which message comes next.
#[derive(Debug, Default)]
pub struct Order {
    generation: Option<String>,
    next: Option<(i64, i64)>,
}

impl Order {
    /// Looks at the next message. After a gap the caller asks the database: its answer is newer
    /// than this emission, so that the rest of it, and the next one, are in order.
    pub fn step(&mut self, message: &Message) -> Step {
        let (Some(sequence), Some(part), Some(parts)) =
            (message.sequence, message.part, message.parts)
        else {
            return Step::Loose;
        };
        // The answer of the database to the own cursor tells whether the cursor is of this life,
        // too.
        let known = self.generation.is_some() && self.generation == message.generation;
        let in_order = known && self.next.map_or(part == 1, |next| next == (sequence, part));
        self.next = Some(if part < parts { (sequence, part + 1) } else { (sequence + 1, 1) });
        if !known {
            self.generation.clone_from(&message.generation);
        }
        if in_order { Step::InOrder } else { Step::Gap }
    }

    /// Forgets everything: the messages that are waiting may be of an earlier life.
    pub fn forget(&mut self) {
        *self = Order::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, Order, Step};

    fn message(generation: &str, sequence: i64, part: i64, parts: i64) -> Message {
        let (sequence, part, parts) = (Some(sequence), Some(part), Some(parts));
        Message {
            generation: Some(generation.into()),
            sequence,
            part,
            parts,
            levels: Vec::new(),
            cursor: None,
        }
    }

    /// Steps of a listener that knows its generation.
    fn steps(messages: &[Message]) -> Vec<Step> {
        let mut order = Order { generation: Some("g".into()), next: None };
        messages.iter().map(|message| order.step(message)).collect()
    }

    #[test]
    fn parts_and_numbers_in_order_are_no_gap() {
        let all = [
            message("g", 7, 1, 2),
            message("g", 7, 2, 2),
            message("g", 8, 1, 1),
            message("g", 9, 1, 1),
        ];
        assert_eq!(steps(&all), [Step::InOrder; 4]);
    }

    #[test]
    fn a_missing_number_or_part_is_a_gap_after_which_order_is_counted_anew() {
        let all = [
            message("g", 7, 1, 1),
            message("g", 9, 1, 1),
            message("g", 12, 1, 1),
            message("g", 13, 1, 1),
        ];
        assert_eq!(steps(&all), [Step::InOrder, Step::Gap, Step::Gap, Step::InOrder]);
        let all = [message("g", 7, 1, 3), message("g", 7, 3, 3), message("g", 8, 1, 1)];
        assert_eq!(steps(&all), [Step::InOrder, Step::Gap, Step::InOrder]);
        assert_eq!(steps(&[message("g", 7, 2, 2)]), [Step::Gap]);
        let all = [message("g", 7, 1, 1), message("g", 7, 1, 1)];
        assert_eq!(steps(&all), [Step::InOrder, Step::Gap]);
    }

    #[test]
    fn another_life_is_a_gap_until_the_database_was_asked() {
        let all = [message("g", 7, 1, 1), message("h", 8, 1, 1), message("h", 9, 1, 1)];
        assert_eq!(steps(&all), [Step::InOrder, Step::Gap, Step::InOrder]);
        let mut order = Order::default();
        let parts = [1, 2, 3].map(|part| order.step(&message("g", 1, part, 3)));
        assert_eq!(
            parts,
            [Step::Gap, Step::InOrder, Step::InOrder],
            "one question answers for all parts"
        );
    }

    #[test]
    fn a_message_of_a_transaction_has_no_number() {
        let text = r#"{"levels":[{"sku":"a","location":"m","on_hand":10,"reserved":2,"safety_stock":0,"available":8,
                       "frozen":false,"version":7}]}"#;
        let message: Message = serde_json::from_str(text).expect("a message");
        assert_eq!(message.levels[0].version, 7);
        assert_eq!(steps(std::slice::from_ref(&message)), [Step::Loose]);
        assert_eq!(Order::default().step(&message), Step::Loose);
    }
}
