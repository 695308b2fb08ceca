//! A walk over everything that a SELECT has. What it does not know is no read.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    self, CommonTableExpr, JsonBehavior, JsonOutput, JsonValueExpr, Node, SelectStmt, TypeName,
    WindowDef, WithClause,
};

use crate::{Catalog, Reason};

/// Why a SELECT, VALUES or TABLE is no read.
pub(super) fn reason(node: &NodeEnum, catalog: &Catalog) -> Option<Reason> {
    let mut walk = Walk { catalog, left: vec![Part::Node(node)], reason: None };
    while let (Some(part), None) = (walk.left.pop(), &walk.reason) {
        match part {
            Part::Node(node) => walk.node(node),
            Part::Select(select) => walk.select(select),
        }
    }
    walk.reason
}

struct Walk<'a> {
    catalog: &'a Catalog,
    /// What has still to be looked at.
    left: Vec<Part<'a>>,
    reason: Option<Reason>,
}

enum Part<'a> {
    Node(&'a NodeEnum),
    Select(&'a SelectStmt),
}

type Boxed = Option<Box<Node>>;

impl<'a> Walk<'a> {
    fn refuse(&mut self, reason: impl Into<Option<Reason>>) {
        self.reason = self.reason.take().or(reason.into());
    }

    fn all(&mut self, nodes: &'a [Node]) {
        self.left.extend(nodes.iter().filter_map(|node| node.node.as_ref()).map(Part::Node));
    }

    fn one(&mut self, node: &'a Boxed) {
        self.left.extend(node.as_ref().and_then(|node| node.node.as_ref()).map(Part::Node));
    }

    fn node(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::SelectStmt(select) => self.select(select),
            NodeEnum::String(_) | NodeEnum::Integer(_) | NodeEnum::Float(_) => {}
            NodeEnum::Boolean(_) | NodeEnum::BitString(_) | NodeEnum::AStar(_) => {}
            NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::SqlvalueFunction(_) => {}
            NodeEnum::List(list) => self.all(&list.items),
            NodeEnum::FuncCall(_) | NodeEnum::AExpr(_) | NodeEnum::TypeCast(_) => self.call(node),
            NodeEnum::ColumnRef(column) => {
                if let [_, .., last] = &column.fields[..] {
                    self.field(last);
                }
            }
            NodeEnum::RangeVar(table) => {
                self.refuse(self.catalog.relation(&table.schemaname, &table.relname));
            }
            _ if self.clause(node) || self.expression(node) => {}
            _ if self.table(node) || self.json(node) || self.xml(node) => {}
            _ => self.refuse(Reason::Construct),
        }
    }

    fn select(&mut self, select: &'a SelectStmt) {
        if select.into_clause.is_some() {
            return self.refuse(Reason::Into);
        }
        if !select.locking_clause.is_empty() {
            return self.refuse(Reason::LockingClause);
        }
        for nodes in [
            &select.distinct_clause,
            &select.target_list,
            &select.from_clause,
            &select.group_clause,
            &select.window_clause,
            &select.values_lists,
            &select.sort_clause,
        ] {
            self.all(nodes);
        }
        for node in
            [&select.where_clause, &select.having_clause, &select.limit_offset, &select.limit_count]
        {
            self.one(node);
        }
        self.with(select.with_clause.as_ref());
        self.left
            .extend([&select.larg, &select.rarg].into_iter().flatten().map(|s| Part::Select(s)));
    }

    fn with(&mut self, with: Option<&'a WithClause>) {
        let ctes = with.iter().flat_map(|with| &with.ctes);
        for cte in ctes.filter_map(|cte| cte.node.as_ref()) {
            match cte {
                NodeEnum::CommonTableExpr(cte) => self.cte(cte),
                _ => self.refuse(Reason::Construct),
            }
        }
    }

    fn cte(&mut self, cte: &'a CommonTableExpr) {
        match cte.ctequery.as_ref().and_then(|query| query.node.as_ref()) {
            Some(query @ NodeEnum::SelectStmt(_)) => self.left.push(Part::Node(query)),
            _ => self.refuse(Reason::DataModifyingCte),
        }
        if let Some(cycle) = &cte.cycle_clause {
            self.one(&cycle.cycle_mark_value);
            self.one(&cycle.cycle_mark_default);
        }
    }

    /// What calls a function by a name: of a function, an operator, a type.
    fn call(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::FuncCall(call) => {
                match last_name(&call.funcname) {
                    Some(name) => self.refuse(self.catalog.function(name)),
                    None => self.refuse(Reason::Construct),
                }
                self.all(&call.args);
                self.all(&call.agg_order);
                self.one(&call.agg_filter);
                self.window(call.over.as_deref());
            }
            NodeEnum::AExpr(expression) => {
                self.operator(&expression.name);
                self.one(&expression.lexpr);
                self.one(&expression.rexpr);
            }
            NodeEnum::TypeCast(cast) => {
                self.type_name(cast.type_name.as_ref());
                self.one(&cast.arg);
            }
            _ => self.refuse(Reason::Construct),
        }
    }

    /// Parts of clauses. Returns whether it is one.
    fn clause(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::ResTarget(target) => {
                self.all(&target.indirection);
                self.one(&target.val);
            }
            NodeEnum::SortBy(sort) => {
                self.operator(&sort.use_op);
                self.one(&sort.node);
            }
            NodeEnum::WindowDef(window) => self.window(Some(window)),
            NodeEnum::GroupingSet(set) => self.all(&set.content),
            NodeEnum::GroupingFunc(grouping) => self.all(&grouping.args),
            NodeEnum::NamedArgExpr(named) => self.one(&named.arg),
            _ => return false,
        }
        true
    }

    /// Expressions. Returns whether it is one.
    fn expression(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::BoolExpr(expression) => self.all(&expression.args),
            NodeEnum::SubLink(link) => {
                self.operator(&link.oper_name);
                self.one(&link.testexpr);
                self.one(&link.subselect);
            }
            NodeEnum::CollateClause(collate) => self.one(&collate.arg),
            NodeEnum::AIndirection(indirection) => {
                for field in &indirection.indirection {
                    self.field(field);
                }
                self.one(&indirection.arg);
                self.all(&indirection.indirection);
            }
            NodeEnum::AIndices(indices) => {
                self.one(&indices.lidx);
                self.one(&indices.uidx);
            }
            NodeEnum::AArrayExpr(array) => self.all(&array.elements),
            NodeEnum::NullTest(test) => self.one(&test.arg),
            NodeEnum::BooleanTest(test) => self.one(&test.arg),
            NodeEnum::CaseExpr(case) => {
                self.one(&case.arg);
                self.all(&case.args);
                self.one(&case.defresult);
            }
            NodeEnum::CaseWhen(when) => {
                self.one(&when.expr);
                self.one(&when.result);
            }
            NodeEnum::CoalesceExpr(coalesce) => self.all(&coalesce.args),
            NodeEnum::MinMaxExpr(expression) => self.all(&expression.args),
            NodeEnum::RowExpr(row) => self.all(&row.args),
            _ => return false,
        }
        true
    }

    /// What stands in FROM. Returns whether it is that.
    fn table(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::RangeSubselect(query) => self.one(&query.subquery),
            NodeEnum::RangeFunction(function) => {
                self.all(&function.functions);
                self.all(&function.coldeflist);
            }
            NodeEnum::ColumnDef(column) => {
                self.type_name(column.type_name.as_ref());
                self.one(&column.raw_default);
                self.all(&column.constraints);
            }
            NodeEnum::RangeTableSample(sample) => {
                match last_name(&sample.method) {
                    Some("system" | "bernoulli" | "system_rows" | "system_time") => {}
                    _ => self.refuse(Reason::Construct),
                }
                self.one(&sample.relation);
                self.all(&sample.args);
                self.one(&sample.repeatable);
            }
            NodeEnum::JoinExpr(join) => {
                self.one(&join.larg);
                self.one(&join.rarg);
                self.one(&join.quals);
            }
            NodeEnum::RangeTableFunc(table) => {
                self.one(&table.docexpr);
                self.one(&table.rowexpr);
                self.all(&table.namespaces);
                self.all(&table.columns);
            }
            NodeEnum::RangeTableFuncCol(column) => {
                self.type_name(column.type_name.as_ref());
                self.one(&column.colexpr);
                self.one(&column.coldefexpr);
            }
            _ => return false,
        }
        true
    }

    /// XML. Returns whether it is that.
    fn xml(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::XmlExpr(xml) => {
                self.all(&xml.named_args);
                self.all(&xml.args);
            }
            NodeEnum::XmlSerialize(xml) => {
                self.type_name(xml.type_name.as_ref());
                self.one(&xml.expr);
            }
            _ => return false,
        }
        true
    }

    /// JSON. Returns whether it is that.
    fn json(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::JsonObjectConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayConstructor(json) => {
                self.all(&json.exprs);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonArrayQueryConstructor(json) => {
                self.one(&json.query);
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonParseExpr(json) => self.json_value(json.expr.as_deref()),
            NodeEnum::JsonScalarExpr(json) => self.one(&json.expr),
            NodeEnum::JsonSerializeExpr(json) => {
                self.json_value(json.expr.as_deref());
                self.json_output(json.output.as_ref());
            }
            NodeEnum::JsonIsPredicate(json) => self.one(&json.expr),
            NodeEnum::JsonValueExpr(json) => self.json_value(Some(json)),
            NodeEnum::JsonKeyValue(json) => {
                self.one(&json.key);
                self.json_value(json.value.as_deref());
            }
            NodeEnum::JsonArgument(json) => self.json_value(json.val.as_deref()),
            _ => return self.json_query(node) || self.json_aggregate(node),
        }
        true
    }

    fn json_query(&mut self, node: &'a NodeEnum) -> bool {
        match node {
            NodeEnum::JsonFuncExpr(json) => {
                self.json_value(json.context_item.as_deref());
                self.one(&json.pathspec);
                self.all(&json.passing);
                self.json_output(json.output.as_ref());
                self.json_behavior(json.on_empty.as_deref());
                self.json_behavior(json.on_error.as_deref());
            }
            NodeEnum::JsonTable(json) => {
                self.json_value(json.context_item.as_deref());
                self.json_path(json.pathspec.as_deref());
                self.all(&json.passing);
                self.all(&json.columns);
                self.json_behavior(json.on_error.as_deref());
            }
            NodeEnum::JsonTableColumn(json) => {
                self.type_name(json.type_name.as_ref());
                self.json_path(json.pathspec.as_deref());
                self.all(&json.columns);
                self.json_behavior(json.on_empty.as_deref());
                self.json_behavior(json.on_error.as_deref());
            }
            _ => return false,
        }
        true
    }

    fn json_aggregate(&mut self, node: &'a NodeEnum) -> bool {
        let constructor = match node {
            NodeEnum::JsonObjectAgg(json) => {
                if let Some(pair) = &json.arg {
                    self.one(&pair.key);
                    self.json_value(pair.value.as_deref());
                }
                json.constructor.as_deref()
            }
            NodeEnum::JsonArrayAgg(json) => {
                self.json_value(json.arg.as_deref());
                json.constructor.as_deref()
            }
            _ => return false,
        };
        if let Some(constructor) = constructor {
            self.json_output(constructor.output.as_ref());
            self.one(&constructor.agg_filter);
            self.all(&constructor.agg_order);
            self.window(constructor.over.as_deref());
        }
        true
    }

    fn json_value(&mut self, value: Option<&'a JsonValueExpr>) {
        if let Some(value) = value {
            self.one(&value.raw_expr);
            self.one(&value.formatted_expr);
        }
    }

    fn json_output(&mut self, output: Option<&'a JsonOutput>) {
        self.type_name(output.and_then(|output| output.type_name.as_ref()));
    }

    fn json_behavior(&mut self, behavior: Option<&'a JsonBehavior>) {
        if let Some(behavior) = behavior {
            self.one(&behavior.expr);
        }
    }

    fn json_path(&mut self, path: Option<&'a protobuf::JsonTablePathSpec>) {
        if let Some(path) = path {
            self.one(&path.string);
        }
    }

    fn window(&mut self, window: Option<&'a WindowDef>) {
        if let Some(window) = window {
            self.all(&window.partition_clause);
            self.all(&window.order_clause);
            self.one(&window.start_offset);
            self.one(&window.end_offset);
        }
    }

    fn type_name(&mut self, name: Option<&'a TypeName>) {
        let Some(name) = name else { return };
        if let Some(last) = last_name(&name.names) {
            self.refuse(self.catalog.type_named(last));
        }
        self.all(&name.typmods);
    }

    fn operator(&mut self, names: &'a [Node]) {
        if let Some(name) = last_name(names) {
            self.refuse(self.catalog.operator(name));
        }
    }

    /// `….name`, which may call a function of a row.
    fn field(&mut self, name: &'a Node) {
        if let Some(NodeEnum::String(name)) = &name.node {
            self.refuse(self.catalog.field(&name.sval));
        }
    }
}

/// The last of the names that stand for a function, an operator or a type.
fn last_name(names: &[Node]) -> Option<&str> {
    match names.last()?.node.as_ref()? {
        NodeEnum::String(name) => Some(&name.sval),
        _ => None,
    }
}
