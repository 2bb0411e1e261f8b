//! From a template's tree to text.

use regex::Regex;
use thiserror::Error;

use super::functions::{self, Function, Run};
use super::parse::{Expr, Node};
use super::value::Value;
use super::{Subject, Template};
use crate::rules::limits;

/// Why a template yields no text for this alert.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum RenderError {
    #[error("the text grows beyond {} bytes", limits::TEMPLATE_OUTPUT_BYTES_MAX)]
    TooLong,
    #[error("`{function}`: {message}")]
    Call { function: &'static str, message: String },
}

pub(super) fn render(template: &Template, subject: &Subject<'_>) -> Result<String, RenderError> {
    let mut renderer = Renderer { subject, locals: vec![Value::Bool(false); template.locals], text: String::new() };
    renderer.nodes(&template.nodes)?;
    Ok(renderer.text)
}

struct Renderer<'a> {
    subject: &'a Subject<'a>,
    locals: Vec<Value<'a>>,
    text: String,
}

impl<'a> Renderer<'a> {
    fn nodes(&mut self, nodes: &'a [Node]) -> Result<(), RenderError> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &'a Node) -> Result<(), RenderError> {
        match node {
            Node::Text(text) => self.push(text),
            Node::Print(expr) => {
                let value = self.value(expr)?;
                self.push(&value.shown())
            }
            Node::Set { local, expr } => {
                let value = self.value(expr)?;
                if let Some(slot) = self.locals.get_mut(*local) {
                    *slot = value;
                }
                Ok(())
            }
            Node::If { branches, otherwise } => {
                for (condition, nodes) in branches {
                    if self.value(condition)?.is_true() {
                        return self.nodes(nodes);
                    }
                }
                self.nodes(otherwise)
            }
        }
    }

    fn push(&mut self, text: &str) -> Result<(), RenderError> {
        if self.text.len() + text.len() > limits::TEMPLATE_OUTPUT_BYTES_MAX {
            return Err(RenderError::TooLong);
        }
        self.text.push_str(text);
        Ok(())
    }

    fn value(&self, expr: &'a Expr) -> Result<Value<'a>, RenderError> {
        Ok(match expr {
            Expr::Text(text) => Value::text(text.as_str()),
            Expr::Number(number) => Value::Number(*number),
            Expr::Integer(number) => Value::Integer(*number),
            Expr::Bool(truth) => Value::Bool(*truth),
            Expr::Labels => Value::Labels(self.subject.labels),
            Expr::ExternalLabels => Value::Labels(self.subject.external_labels),
            Expr::Value => Value::Number(self.subject.value),
            Expr::ExternalUrl => Value::text(self.subject.external_url),
            Expr::Local(local) => self.locals.get(*local).cloned().unwrap_or(Value::Bool(false)),
            Expr::Label { of, name } => match self.value(of)? {
                Value::Labels(labels) => Value::text(labels.value(name)),
                other => {
                    let message = format!("a {} has no field {name}", other.type_name());
                    return Err(RenderError::Call { function: ".", message });
                }
            },
            Expr::Call { function, pattern, arguments } => self.call(function, pattern.as_ref(), arguments)?,
        })
    }

    fn call(
        &self,
        function: &'static Function,
        pattern: Option<&'a Regex>,
        arguments: &'a [Expr],
    ) -> Result<Value<'a>, RenderError> {
        let failed = |message: String| RenderError::Call { function: function.name, message };
        let values = arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
        let value = match (&function.run, pattern, values.as_slice()) {
            (Run::Plain(run), _, values) => run(values),
            (Run::Pattern(run), Some(pattern), values) => run(pattern, values),
            (Run::Pattern(run), None, [pattern, values @ ..]) => {
                let pattern = functions::compile(&pattern.shown()).map_err(|error| failed(error.to_string()))?;
                run(&pattern, values)
            }
            (Run::Pattern(_), None, []) => Err("it has no expression".to_owned()),
        };
        let value = value.map_err(failed)?;
        match &value {
            Value::Text(text) if text.len() > limits::TEMPLATE_OUTPUT_BYTES_MAX => Err(RenderError::TooLong),
            _ => Ok(value),
        }
    }
}
