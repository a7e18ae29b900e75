//! A request of several keys in a cluster, which runs a script on the counters of one slot, and those are of one key.
//!
//! It is decided key by key; if it does not go through, what the others took is given back. So for a moment it may have taken
//! what another would have been let through with. No more is let through, but for hits whose window ended in that moment:
//! they are given back to the next one. While one server is away, the counters of that one are decided on here, and those of
//! the others go on.

use futures::future::join_all;

use super::Shared;
use super::call::{Answer, Question, Wanted};
use super::link::CallError;
use crate::ratelimit::algorithms::charges_refusals;
use crate::ratelimit::counters::{Ask, Hits, Outcome, Role, Unavailable, admitted};

impl Shared {
    /// Decides slot by slot, here what cannot be asked, and gives back what was taken if the request does not go through.
    pub(super) async fn by_slots(
        &self,
        asks: &[Ask<'_>],
        questions: &[Question],
        slots: Vec<Vec<usize>>,
    ) -> Result<Vec<Outcome>, Unavailable> {
        let replies = join_all(slots.iter().map(|slot| {
            let questions: Vec<Question> = slot.iter().map(|at| questions[*at].clone()).collect();
            async move { self.link.ask(&questions, self.terms(true)).await }
        }));
        let replies = replies.await;
        let mut answers: Vec<Option<Answer>> = vec![None; questions.len()];
        let mut away: Vec<(usize, &CallError)> = Vec::new();
        for (slot, reply) in slots.iter().zip(&replies) {
            match reply {
                Ok(reply) => slot.iter().zip(&reply.answers).for_each(|(at, answer)| {
                    self.mirror(&asks[*at..=*at], std::slice::from_ref(answer));
                    self.grants.rest(&questions[*at..=*at], std::slice::from_ref(answer), reply.now);
                    answers[*at] = Some(*answer);
                }),
                Err(error) => away.extend(slot.iter().map(|at| (*at, error))),
            }
        }
        let mut outcomes: Vec<Option<Outcome>> =
            answers.iter().map(|answer| answer.map(|answer| answer.outcome)).collect();
        let decided = match away.first() {
            Some((_, error)) => self.here(asks, &away, error, &mut outcomes),
            None => Ok(()),
        };
        if decided.is_err() || !goes_through(asks, &outcomes) {
            let known = questions.iter().zip(&answers);
            let back = known.filter_map(|(question, answer)| undone(question, answer.as_ref()?)).collect();
            let back = self.together(back);
            join_all(back.iter().map(|questions| self.link.ask(questions, self.terms(true)))).await;
        }
        decided.map(|()| outcomes.into_iter().flatten().collect())
    }

    /// Decides on what could not be asked, with what is known of the rest: nothing is taken if that refuses the request.
    fn here(
        &self,
        asks: &[Ask<'_>],
        away: &[(usize, &CallError)],
        error: &CallError,
        outcomes: &mut [Option<Outcome>],
    ) -> Result<(), Unavailable> {
        let refused = !goes_through(asks, outcomes);
        let ask = |at: usize| if refused { looked_at(&asks[at]) } else { asks[at] };
        let here: Vec<Ask<'_>> = away.iter().map(|(at, _)| ask(*at)).collect();
        let decided = self.without(&here, error)?;
        away.iter().zip(decided).for_each(|((at, _), outcome)| outcomes[*at] = Some(outcome));
        Ok(())
    }
}

/// What gives back what was taken for a request that does not go through.
fn undone(question: &Question, answer: &Answer) -> Option<Question> {
    match question.wanted {
        Wanted::Hits(Hits::Take(n))
            if n > 0 && answer.outcome.allowed && !charges_refusals(&question.algorithm) =>
        {
            let wanted = Wanted::Undo { counted: answer.charged, granted: n.saturating_sub(answer.charged) };
            Some(Question { wanted, role: Role::Shadow, ..question.clone() })
        }
        _ => None,
    }
}

/// Whether a request goes through by what is known of its asks.
fn goes_through(asks: &[Ask<'_>], outcomes: &[Option<Outcome>]) -> bool {
    // What is not known may yet be allowed: a quota that is used up refuses with the others alone.
    let known =
        |(ask, outcome): (&Ask<'_>, &Option<Outcome>)| (ask.role, outcome.is_none_or(|it| it.allowed));
    admitted(asks.iter().zip(outcomes).map(known))
}

/// The same without anything taken: something else has refused the request.
fn looked_at<'a>(ask: &Ask<'a>) -> Ask<'a> {
    match ask.hits {
        // What is under way is given back whether it was refused or not.
        Hits::Take(_) if !charges_refusals(&ask.limit.algorithm) => {
            Ask { hits: Hits::Take(0), role: Role::Shadow, ..*ask }
        }
        _ => *ask,
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

    use super::*;
    use crate::model::limit::{Algorithm, Key, Limit};

    fn limit(algorithm: Algorithm) -> Limit {
        Limit::new("l".into(), Key::ClientAddress, algorithm)
    }

    #[test]
    fn what_is_not_known_refuses_nothing_yet() {
        let limit = limit(Algorithm::FixedWindow { requests: 1, window_ms: 1 });
        let ask = |role| Ask { limit: &limit, key: &[] as &[Entry], hits: Hits::Take(1), role };
        let said = |allowed| Some(Outcome { allowed, remaining: 0, reset_ms: 0 });
        let quotas = [ask(Role::Quota(0)), ask(Role::Quota(1))];
        assert!(goes_through(&quotas, &[said(false), None]), "another group may have some left");
        assert!(!goes_through(&quotas, &[said(false), said(false)]));
        assert!(!goes_through(&[ask(Role::Binding), ask(Role::Quota(1))], &[said(false), None]));
        assert!(goes_through(&[ask(Role::Binding)], &[None]));
    }

    #[test]
    fn what_is_under_way_is_taken_of_a_request_that_is_refused_too() {
        let gauge = limit(Algorithm::Concurrency { limit: 1, lease_ms: 1_000 });
        let window = limit(Algorithm::FixedWindow { requests: 1, window_ms: 1 });
        let hits = |limit: &Limit| {
            looked_at(&Ask { limit, key: &[], hits: Hits::Take(1), role: Role::Binding }).hits
        };
        assert_eq!(hits(&gauge), Hits::Take(1), "Envoy gives it back");
        assert_eq!(hits(&window), Hits::Take(0));
    }
}
