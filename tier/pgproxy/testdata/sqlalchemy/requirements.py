# What PostgreSQL can do beyond what SQLAlchemy's suite asks of every database. A thing too many costs
# nothing: a test counts only when it passes at the server itself.
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

ABLE = """
array_type autocommit comment_reflection check_constraint_reflection computed_columns computed_columns_stored
computed_columns_default_persisted computed_columns_reflect_persisted cross_schema_fk_reflection ctes ctes_on_dml
ctes_with_update_delete datetime_timezone delete_from except_ fetch_expression fetch_first fetch_no_order_by
fetch_ties fk_constraint_option_reflection_ondelete_restrict foreign_key_constraint_name_reflection
foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate
fk_constraint_option_reflection_onupdate_restrict has_temp_table identity_columns identity_columns_standard
index_reflects_included_columns indexes_with_expressions infinity_floats intersect isolation_level json_type
mod_operator_as_percent_sign non_updating_cascade nullable_booleans order_by_label_with_expression
precision_numerics_enotation_large precision_numerics_general precision_numerics_many_significant_digits
precision_numerics_retains_significant_digits reflect_tables_no_columns reflects_pk_names regexp_match
regexp_replace savepoints server_side_cursors standalone_binds standalone_null_binds_whereclause
supports_distinct_on supports_is_distinct_from table_value_constructor temporary_views time_timezone
timestamp_microseconds tuple_in two_phase_transactions unicode_ddl update_from views window_functions
""".split()


class Requirements(SuiteRequirements):
    def get_isolation_levels(self, config):
        return {
            "default": "READ COMMITTED",
            "supported": ["READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"],
        }


for name in ABLE:
    setattr(Requirements, name, property(lambda self: exclusions.open()))
