"""First tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.create_table('people',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('email', sa.String(), nullable=True, comment='lower case; empty after erasure'),
    sa.Column('name', sa.String(), nullable=True),
    sa.Column('password_hash', sa.String(), nullable=True, comment='argon2id'),
    sa.Column('language', sa.String(), nullable=True, comment="the pages' language; empty: as the browser asks"),
    sa.Column('is_owner', sa.Boolean(), server_default=sa.text('false'), nullable=False, comment='may create projects and administers every project'),
    sa.Column('failed_sign_ins', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('locked_until', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('erased_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('erased_at IS NULL OR (email IS NULL AND name IS NULL)', name=op.f('ck_people_erased_is_empty')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_people'))
    )
    op.create_index('uq_people_email', 'people', [sa.literal_column('lower(email)')], unique=True)
    op.create_table('api_tokens',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('prefix', sa.String(), nullable=False, comment="the token's first characters, to tell tokens apart"),
    sa.Column('token_hash', sa.String(), nullable=False, comment='sha256 of the token'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_api_tokens_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_api_tokens')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_api_tokens_token_hash'))
    )
    op.create_index(op.f('ix_api_tokens_person_id'), 'api_tokens', ['person_id'], unique=False)
    op.create_table('projects',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('slug', sa.String(), nullable=False, comment='the name in addresses: lower case, digits, hyphens'),
    sa.Column('name', sa.String(), nullable=False),
    sa.Column('state', sa.Enum('active', 'paused', 'archived', name='projectstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment='active: comparisons are handed out and rounds may start; paused: nothing is handed out, no round moves on; archived: read only'),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='ProjectSettings of app.domain.settings'),
    sa.Column('current_version_id', sa.BigInteger(), nullable=True),
    sa.Column('current_policy_id', sa.BigInteger(), nullable=True, comment='the policy that is served and sampled'),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('archived_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_projects_created_by_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_projects')),
    sa.UniqueConstraint('slug', name=op.f('uq_projects_slug'))
    )
    op.create_table('sign_in_links',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('token_hash', sa.String(), nullable=False, comment="sha256 of the link's secret"),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_sign_in_links_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_sign_in_links')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_sign_in_links_token_hash'))
    )
    op.create_index(op.f('ix_sign_in_links_person_id'), 'sign_in_links', ['person_id'], unique=False)
    op.create_table('web_sessions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('token_hash', sa.String(), nullable=False, comment="sha256 of the cookie's secret"),
    sa.Column('csrf_token', sa.String(), nullable=False, comment='every form of this session carries it'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('last_seen_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_web_sessions_person_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_web_sessions')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_web_sessions_token_hash'))
    )
    op.create_index(op.f('ix_web_sessions_person_id'), 'web_sessions', ['person_id'], unique=False)
    op.create_table('audit_events',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=True),
    sa.Column('person_id', sa.BigInteger(), nullable=True),
    sa.Column('action', sa.String(), nullable=False, comment='subject.verb, such as comparison.close'),
    sa.Column('subject_id', sa.BigInteger(), nullable=True, comment="the row that was acted on, in the subject's table"),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='what changed: before and after, or the reason'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_audit_events_person_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_audit_events_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_audit_events'))
    )
    op.create_index('ix_audit_events_project_id', 'audit_events', ['project_id', 'id'], unique=False)
    op.create_table('imports',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('filename', sa.String(), nullable=False),
    sa.Column('content', sa.LargeBinary(), nullable=True, comment='the file; emptied once taken or discarded'),
    sa.Column('state', sa.Enum('previewed', 'taken', 'discarded', name='importstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment='previewed: read and checked; nothing taken yet; taken: its good rows are prompts and responses now; discarded: the admin took nothing'),
    sa.Column('report', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='counts, and errors by line'),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_imports_created_by_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_imports_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_imports')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_imports_project_id_id'))
    )
    op.create_index(op.f('ix_imports_project_id'), 'imports', ['project_id'], unique=False)
    op.create_table('invites',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=True),
    sa.Column('role', sa.Enum('admin', 'annotator', name='role', native_enum=False, create_constraint=True, length=24), nullable=False, comment='admin: runs the project: people, prompts, rounds, exports; annotator: labels comparisons and sees their own labels'),
    sa.Column('token_hash', sa.String(), nullable=False, comment="sha256 of the link's secret"),
    sa.Column('created_by_id', sa.BigInteger(), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('max_uses', sa.BigInteger(), nullable=False),
    sa.Column('uses', sa.BigInteger(), server_default=sa.text('0'), nullable=False),
    sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint('uses <= max_uses', name=op.f('ck_invites_uses_within_max')),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_invites_created_by_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_invites_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_invites')),
    sa.UniqueConstraint('token_hash', name=op.f('uq_invites_token_hash'))
    )
    op.create_index(op.f('ix_invites_project_id'), 'invites', ['project_id'], unique=False)
    op.create_table('memberships',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('person_id', sa.BigInteger(), nullable=False),
    sa.Column('role', sa.Enum('admin', 'annotator', name='role', native_enum=False, create_constraint=True, length=24), nullable=False, comment='admin: runs the project: people, prompts, rounds, exports; annotator: labels comparisons and sees their own labels'),
    sa.Column('joined_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('left_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('withdrawn_at', sa.DateTime(timezone=True), nullable=True, comment='this annotator withdrew all labels'),
    sa.ForeignKeyConstraint(['person_id'], ['people.id'], name=op.f('fk_memberships_person_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_memberships_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_memberships')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_memberships_project_id_id')),
    sa.UniqueConstraint('project_id', 'person_id', name=op.f('uq_memberships_project_id_person_id'))
    )
    op.create_index(op.f('ix_memberships_person_id'), 'memberships', ['person_id'], unique=False)
    op.create_table('project_versions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.BigInteger(), nullable=False),
    sa.Column('guidelines', sa.String(), nullable=False, comment='markdown'),
    sa.Column('consent_text', sa.String(), server_default=sa.text("''"), nullable=False, comment='markdown; empty: none is asked for'),
    sa.Column('judgement_form', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='what annotators are asked, beginning with the ranking'),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_project_versions_created_by_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_project_versions_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_project_versions')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_project_versions_project_id_id')),
    sa.UniqueConstraint('project_id', 'number', name=op.f('uq_project_versions_project_id_number'))
    )
    op.create_table('snapshots',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('content_hash', sa.String(), nullable=False, comment='sha256 over the pinned revisions and what they say'),
    sa.Column('labels_count', sa.Integer(), nullable=False),
    sa.Column('created_by_id', sa.BigInteger(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('tainted_at', sa.DateTime(timezone=True), nullable=True, comment='a label in it was withdrawn: no longer exported'),
    sa.ForeignKeyConstraint(['created_by_id'], ['people.id'], name=op.f('fk_snapshots_created_by_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_snapshots_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_snapshots')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_snapshots_project_id_id')),
    sa.UniqueConstraint('project_id', 'number', name=op.f('uq_snapshots_project_id_number'))
    )
    op.create_table('consents',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('annotator_id', sa.BigInteger(), nullable=False),
    sa.Column('project_version_id', sa.BigInteger(), nullable=False),
    sa.Column('accepted_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'annotator_id'], ['memberships.project_id', 'memberships.id'], name=op.f('fk_consents_project_id_annotator_id')),
    sa.ForeignKeyConstraint(['project_id', 'project_version_id'], ['project_versions.project_id', 'project_versions.id'], name=op.f('fk_consents_project_id_project_version_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_consents')),
    sa.UniqueConstraint('annotator_id', 'project_version_id', name=op.f('uq_consents_annotator_id_project_version_id'))
    )
    op.create_table('prompts',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('messages', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='[{role, content}], content a text or a list of parts'),
    sa.Column('group_key', sa.String(), nullable=False, comment="the conversation's root: prompts of one group share a split"),
    sa.Column('split', sa.Enum('train', 'validation', 'test', name='split', native_enum=False, create_constraint=True, length=24), nullable=False, comment='train: fits reward models and is rolled out in PPO; validation: makes choices and fits the evaluation reward model; test: measures; nothing is ever chosen on it'),
    sa.Column('state', sa.Enum('active', 'retired', name='promptstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment='active: sampled and compared; retired: replaced by a newer version or taken out by an admin'),
    sa.Column('version', sa.Integer(), server_default=sa.text('1'), nullable=False),
    sa.Column('replaces_id', sa.BigInteger(), nullable=True, comment='the version that this one was edited from'),
    sa.Column('import_id', sa.BigInteger(), nullable=True),
    sa.Column('external_id', sa.String(), nullable=True, comment="the prompt's name where it came from"),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment='what else its source said'),
    sa.Column('content_hash', sa.String(), nullable=False, comment='sha256 of the messages'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'import_id'], ['imports.project_id', 'imports.id'], name=op.f('fk_prompts_project_id_import_id')),
    sa.ForeignKeyConstraint(['project_id', 'replaces_id'], ['prompts.project_id', 'prompts.id'], name=op.f('fk_prompts_project_id_replaces_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_prompts_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_prompts')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_prompts_project_id_id')),
    sa.UniqueConstraint('replaces_id', name=op.f('uq_prompts_replaces_id'))
    )
    op.create_index('ix_prompts_project_id_split', 'prompts', ['project_id', 'split'], unique=False)
    op.create_index('uq_prompts_active_content', 'prompts', ['project_id', 'content_hash'], unique=True, postgresql_where=sa.text("state = 'active'"))
    op.create_table('rounds',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False, comment="1 is the project's first"),
    sa.Column('state', sa.Enum('sampling', 'labelling', 'fitting', 'improving', 'evaluating', 'promoted', 'rejected', 'failed', 'cancelled', name='roundstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment="sampling: the current policy writes responses to be compared; labelling: people label; the trigger has not fired yet; fitting: a reward model is fitted on the round's snapshot; improving: PPO improves the policy; evaluating: the new policy is measured, by the evaluation reward model and, if asked, by people; promoted: the new policy is the project's current one; rejected: the new policy was not better; the old one stays; failed: a step failed for good; `failure` says why; cancelled: an admin stopped it"),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="the project's settings as they were when it started"),
    sa.Column('seed', sa.BigInteger(), nullable=False),
    sa.Column('policy_id', sa.BigInteger(), nullable=True, comment='the policy that it samples and improves'),
    sa.Column('snapshot_id', sa.BigInteger(), nullable=True),
    sa.Column('trigger', sa.Enum('labels', 'time', 'hand', name='trigger', native_enum=False, create_constraint=True, length=24), nullable=True, comment='labels: enough new labels were there; time: enough time had passed, with at least some new labels; hand: an admin said so'),
    sa.Column('failure', sa.String(), nullable=True),
    sa.Column('verdict', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True, comment='the figures that promoted or rejected the new policy'),
    sa.Column('started_by_id', sa.BigInteger(), nullable=True, comment='empty: the loop itself'),
    sa.Column('started_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('labelling_since', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['project_id', 'snapshot_id'], ['snapshots.project_id', 'snapshots.id'], name=op.f('fk_rounds_project_id_snapshot_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_rounds_project_id')),
    sa.ForeignKeyConstraint(['started_by_id'], ['people.id'], name=op.f('fk_rounds_started_by_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_rounds')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_rounds_project_id_id')),
    sa.UniqueConstraint('project_id', 'number', name=op.f('uq_rounds_project_id_number'))
    )
    op.create_index('uq_rounds_one_live', 'rounds', ['project_id'], unique=True, postgresql_where=sa.text("state IN ('sampling', 'labelling', 'fitting', 'improving', 'evaluating')"))
    op.create_table('comparisons',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('prompt_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('purpose', sa.Enum('train', 'evaluation', 'gold', 'repeat', 'gate', name='purpose', native_enum=False, create_constraint=True, length=24), nullable=False, comment="train: fits reward models, measures them or makes choices, as its prompt's split says; evaluation: measures policies; never trained on; gold: its answer is known and checks the annotator; never trained on; repeat: shown again to the same annotator to measure consistency; gate: decides whether a round's policy is promoted; never trained on"),
    sa.Column('state', sa.Enum('open', 'paused', 'closed', 'retired', name='comparisonstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment="open: handed out while it has openings; paused: an admin holds it back; can be opened again; closed: an admin ended it; started work still counts; can be opened again; retired: superseded by a newer policy's responses before anybody started"),
    sa.Column('k', sa.Integer(), nullable=False, comment='labels wanted'),
    sa.Column('openings', sa.Integer(), nullable=False, comment='labels wanted and not yet leased'),
    sa.Column('submitted', sa.Integer(), server_default=sa.text('0'), nullable=False, comment='labels within k'),
    sa.Column('priority', sa.Integer(), server_default=sa.text('0'), nullable=False, comment='higher is handed out first'),
    sa.Column('selected_because', sa.String(), nullable=False, comment='fresh, mixed, imported, gate or by_hand'),
    sa.Column('selection_probability', sa.Float(), nullable=True, comment='with which it was drawn'),
    sa.Column('gold_groups', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True, comment='response ids, best group first'),
    sa.Column('repeats_id', sa.BigInteger(), nullable=True, comment='the comparison that this one repeats'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('openings >= 0', name=op.f('ck_comparisons_openings_not_negative')),
    sa.CheckConstraint('submitted >= 0 AND openings + submitted <= k', name=op.f('ck_comparisons_within_k')),
    sa.ForeignKeyConstraint(['project_id', 'prompt_id'], ['prompts.project_id', 'prompts.id'], name=op.f('fk_comparisons_project_id_prompt_id')),
    sa.ForeignKeyConstraint(['project_id', 'repeats_id'], ['comparisons.project_id', 'comparisons.id'], name=op.f('fk_comparisons_project_id_repeats_id')),
    sa.ForeignKeyConstraint(['project_id', 'round_id'], ['rounds.project_id', 'rounds.id'], name=op.f('fk_comparisons_project_id_round_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_comparisons')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_comparisons_project_id_id')),
    sa.UniqueConstraint('prompt_id', 'id', name=op.f('uq_comparisons_prompt_id_id'))
    )
    op.create_index('ix_comparisons_prompt_id', 'comparisons', ['prompt_id'], unique=False)
    op.create_index('ix_comparisons_queue', 'comparisons', ['project_id', sa.literal_column('priority DESC'), 'id'], unique=False, postgresql_where=sa.text("state = 'open' AND openings > 0"))
    op.create_index('ix_comparisons_round_id', 'comparisons', ['round_id'], unique=False)
    op.create_table('runs',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=False),
    sa.Column('step', sa.Enum('sample_responses', 'fit_reward_model', 'improve_policy', 'evaluate_policy', name='step', native_enum=False, create_constraint=True, length=24), nullable=False, comment='sample_responses: the policy answers prompts; comparisons are opened; fit_reward_model: a training and an evaluation reward model are fitted; improve_policy: PPO against the training reward model; evaluate_policy: new, parent and version 0 are sampled on test prompts and scored'),
    sa.Column('state', sa.Enum('waiting', 'running', 'done', 'failed', 'cancelled', name='runstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment='waiting: its job is queued; running: a worker executes it; done: its results are stored; failed: it ended with an error and is not tried again; cancelled: an admin stopped it'),
    sa.Column('attempt', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('failures', sa.Integer(), server_default=sa.text('0'), nullable=False, comment='times it ended with an error that might pass'),
    sa.Column('settings', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('phase', sa.String(), server_default=sa.text("''"), nullable=False, comment='what it is doing, in words'),
    sa.Column('done', sa.Integer(), server_default=sa.text('0'), nullable=False),
    sa.Column('total', sa.Integer(), server_default=sa.text('0'), nullable=False, comment='0: not known yet'),
    sa.Column('log', sa.String(), server_default=sa.text("''"), nullable=False),
    sa.Column('error', sa.String(), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('started_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(['project_id', 'round_id'], ['rounds.project_id', 'rounds.id'], name=op.f('fk_runs_project_id_round_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_runs')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_runs_project_id_id')),
    sa.UniqueConstraint('round_id', 'step', name=op.f('uq_runs_round_id_step'))
    )
    op.create_table('assignments',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('annotator_id', sa.BigInteger(), nullable=False),
    sa.Column('project_version_id', sa.BigInteger(), nullable=False, comment='the guidelines and form that were shown'),
    sa.Column('occasion', sa.Integer(), server_default=sa.text('1'), nullable=False, comment='2 and more: a repeat'),
    sa.Column('state', sa.Enum('live', 'submitted', 'skipped', 'expired', name='assignmentstate', native_enum=False, create_constraint=True, length=24), nullable=False, comment='live: leased until `expires_at`; submitted: answered; skipped: handed back by the annotator, who is not asked again; expired: the time ran out; the opening went back'),
    sa.Column('shown_order', postgresql.ARRAY(sa.BigInteger()), nullable=False, comment='response ids as shown, first one first'),
    sa.Column('leased_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
    sa.Column('ended_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('skip_reason', sa.String(), nullable=True),
    sa.ForeignKeyConstraint(['project_id', 'annotator_id'], ['memberships.project_id', 'memberships.id'], name=op.f('fk_assignments_project_id_annotator_id')),
    sa.ForeignKeyConstraint(['project_id', 'comparison_id'], ['comparisons.project_id', 'comparisons.id'], name=op.f('fk_assignments_project_id_comparison_id')),
    sa.ForeignKeyConstraint(['project_id', 'project_version_id'], ['project_versions.project_id', 'project_versions.id'], name=op.f('fk_assignments_project_id_project_version_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_assignments')),
    sa.UniqueConstraint('comparison_id', 'id', name=op.f('uq_assignments_comparison_id_id'))
    )
    op.create_index('ix_assignments_annotator_id', 'assignments', ['annotator_id', 'id'], unique=False)
    op.create_index('ix_assignments_expiring', 'assignments', ['expires_at'], unique=False, postgresql_where=sa.text("state = 'live'"))
    op.create_index('uq_assignments_once', 'assignments', ['comparison_id', 'annotator_id', 'occasion'], unique=True, postgresql_where=sa.text("state IN ('live', 'submitted')"))
    op.create_table('comparison_assignees',
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('annotator_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'annotator_id'], ['memberships.project_id', 'memberships.id'], name=op.f('fk_comparison_assignees_project_id_annotator_id')),
    sa.ForeignKeyConstraint(['project_id', 'comparison_id'], ['comparisons.project_id', 'comparisons.id'], name=op.f('fk_comparison_assignees_project_id_comparison_id')),
    sa.PrimaryKeyConstraint('comparison_id', 'annotator_id', name=op.f('pk_comparison_assignees'))
    )
    op.create_table('reward_models',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('snapshot_id', sa.BigInteger(), nullable=False),
    sa.Column('purpose', sa.Enum('training', 'evaluation', name='rewardmodelpurpose', native_enum=False, create_constraint=True, length=24), nullable=False, comment='training: fitted on train prompts; PPO climbs it; evaluation: fitted on validation prompts; PPO never sees it'),
    sa.Column('backbone', sa.String(), nullable=False, comment='what it was fitted from'),
    sa.Column('uri', sa.String(), nullable=False),
    sa.Column('content_hash', sa.String(), nullable=False, comment='sha256 over its files'),
    sa.Column('gain', sa.Float(), nullable=False, comment="normalised = gain * raw + offset, on version 0's samples"),
    sa.Column('offset', sa.Float(), nullable=False),
    sa.Column('card', postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment='what was measured, held-out accuracy first'),
    sa.Column('tainted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'round_id'], ['rounds.project_id', 'rounds.id'], name=op.f('fk_reward_models_project_id_round_id')),
    sa.ForeignKeyConstraint(['project_id', 'run_id'], ['runs.project_id', 'runs.id'], name=op.f('fk_reward_models_project_id_run_id')),
    sa.ForeignKeyConstraint(['project_id', 'snapshot_id'], ['snapshots.project_id', 'snapshots.id'], name=op.f('fk_reward_models_project_id_snapshot_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_reward_models_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_reward_models')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_reward_models_project_id_id')),
    sa.UniqueConstraint('round_id', 'purpose', name=op.f('uq_reward_models_round_id_purpose'))
    )
    op.create_table('run_metrics',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('run_id', sa.BigInteger(), nullable=False),
    sa.Column('attempt', sa.Integer(), nullable=False),
    sa.Column('phase', sa.String(), nullable=False),
    sa.Column('step', sa.Integer(), nullable=False),
    sa.Column('values', postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['run_id'], ['runs.id'], name=op.f('fk_run_metrics_run_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_run_metrics'))
    )
    op.create_index('ix_run_metrics_run_id', 'run_metrics', ['run_id', 'attempt', 'id'], unique=False)
    op.create_table('labels',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('assignment_id', sa.BigInteger(), nullable=False),
    sa.Column('annotator_id', sa.BigInteger(), nullable=False),
    sa.Column('surplus', sa.Boolean(), server_default=sa.text('false'), nullable=False, comment='came after its lease, when no opening was left: kept outside k'),
    sa.Column('excluded_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('excluded_reason', sa.String(), nullable=True),
    sa.Column('excluded_by_id', sa.BigInteger(), nullable=True),
    sa.Column('withdrawn_at', sa.DateTime(timezone=True), nullable=True, comment='the annotator took it back: never exported again'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint('(excluded_at IS NULL) = (excluded_reason IS NULL)', name=op.f('ck_labels_exclusion_has_a_reason')),
    sa.ForeignKeyConstraint(['comparison_id', 'assignment_id'], ['assignments.comparison_id', 'assignments.id'], name=op.f('fk_labels_comparison_id_assignment_id')),
    sa.ForeignKeyConstraint(['excluded_by_id'], ['people.id'], name=op.f('fk_labels_excluded_by_id')),
    sa.ForeignKeyConstraint(['project_id', 'annotator_id'], ['memberships.project_id', 'memberships.id'], name=op.f('fk_labels_project_id_annotator_id')),
    sa.ForeignKeyConstraint(['project_id', 'comparison_id'], ['comparisons.project_id', 'comparisons.id'], name=op.f('fk_labels_project_id_comparison_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_labels')),
    sa.UniqueConstraint('assignment_id', name=op.f('uq_labels_assignment_id')),
    sa.UniqueConstraint('comparison_id', 'id', name=op.f('uq_labels_comparison_id_id')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_labels_project_id_id'))
    )
    op.create_index('ix_labels_annotator_id', 'labels', ['annotator_id', 'id'], unique=False)
    op.create_index('ix_labels_project_id_created_at', 'labels', ['project_id', 'created_at'], unique=False)
    op.create_table('policies',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('parent_id', sa.BigInteger(), nullable=True, comment='the policy that PPO started from'),
    sa.Column('reference_id', sa.BigInteger(), nullable=True, comment='the policy that KL is measured against'),
    sa.Column('reward_model_id', sa.BigInteger(), nullable=True),
    sa.Column('round_id', sa.BigInteger(), nullable=True),
    sa.Column('run_id', sa.BigInteger(), nullable=True),
    sa.Column('uri', sa.String(), nullable=False, comment='an artifact, or for version 0 a hub name or folder'),
    sa.Column('content_hash', sa.String(), nullable=True, comment='sha256 over its files; empty for a hub name'),
    sa.Column('measures', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment='KL, ended rate, length ...'),
    sa.Column('tainted_at', sa.DateTime(timezone=True), nullable=True),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'parent_id'], ['policies.project_id', 'policies.id'], name=op.f('fk_policies_project_id_parent_id')),
    sa.ForeignKeyConstraint(['project_id', 'reference_id'], ['policies.project_id', 'policies.id'], name=op.f('fk_policies_project_id_reference_id')),
    sa.ForeignKeyConstraint(['project_id', 'reward_model_id'], ['reward_models.project_id', 'reward_models.id'], name=op.f('fk_policies_project_id_reward_model_id')),
    sa.ForeignKeyConstraint(['project_id', 'round_id'], ['rounds.project_id', 'rounds.id'], name=op.f('fk_policies_project_id_round_id')),
    sa.ForeignKeyConstraint(['project_id', 'run_id'], ['runs.project_id', 'runs.id'], name=op.f('fk_policies_project_id_run_id')),
    sa.ForeignKeyConstraint(['project_id'], ['projects.id'], name=op.f('fk_policies_project_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_policies')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_policies_project_id_id')),
    sa.UniqueConstraint('project_id', 'version', name=op.f('uq_policies_project_id_version')),
    sa.UniqueConstraint('round_id', name=op.f('uq_policies_round_id'))
    )
    op.create_table('label_revisions',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('label_id', sa.BigInteger(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('project_version_id', sa.BigInteger(), nullable=False, comment='the guidelines and form that this answer follows'),
    sa.Column('shown_order', postgresql.ARRAY(sa.BigInteger()), nullable=False, comment='response ids as shown when it was answered'),
    sa.Column('answers', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False, comment='what the judgement form asks beside the ranking'),
    sa.Column('seconds', sa.Float(), nullable=True, comment='time in front of it'),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.ForeignKeyConstraint(['comparison_id', 'label_id'], ['labels.comparison_id', 'labels.id'], name=op.f('fk_label_revisions_comparison_id_label_id')),
    sa.ForeignKeyConstraint(['project_id', 'label_id'], ['labels.project_id', 'labels.id'], name=op.f('fk_label_revisions_project_id_label_id')),
    sa.ForeignKeyConstraint(['project_id', 'project_version_id'], ['project_versions.project_id', 'project_versions.id'], name=op.f('fk_label_revisions_project_id_project_version_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_label_revisions')),
    sa.UniqueConstraint('comparison_id', 'id', name=op.f('uq_label_revisions_comparison_id_id')),
    sa.UniqueConstraint('label_id', 'number', name=op.f('uq_label_revisions_label_id_number')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_label_revisions_project_id_id'))
    )
    op.create_table('policy_scores',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('round_id', sa.BigInteger(), nullable=False),
    sa.Column('policy_id', sa.BigInteger(), nullable=False),
    sa.Column('reward_model_id', sa.BigInteger(), nullable=False),
    sa.Column('mean', sa.Float(), nullable=False, comment='normalised score over test prompts'),
    sa.Column('winrate', sa.Float(), nullable=False, comment='against version 0 on the same prompts, ties half'),
    sa.Column('winrate_low', sa.Float(), nullable=False, comment='95 % interval, bootstrap by prompt'),
    sa.Column('winrate_high', sa.Float(), nullable=False),
    sa.Column('samples', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'policy_id'], ['policies.project_id', 'policies.id'], name=op.f('fk_policy_scores_project_id_policy_id')),
    sa.ForeignKeyConstraint(['project_id', 'reward_model_id'], ['reward_models.project_id', 'reward_models.id'], name=op.f('fk_policy_scores_project_id_reward_model_id')),
    sa.ForeignKeyConstraint(['project_id', 'round_id'], ['rounds.project_id', 'rounds.id'], name=op.f('fk_policy_scores_project_id_round_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_policy_scores')),
    sa.UniqueConstraint('round_id', 'policy_id', 'reward_model_id', name=op.f('uq_policy_scores_round_id_policy_id_reward_model_id'))
    )
    op.create_table('responses',
    sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('prompt_id', sa.BigInteger(), nullable=False),
    sa.Column('source', sa.Enum('policy', 'imported', 'person', name='responsesource', native_enum=False, create_constraint=True, length=24), nullable=False, comment='policy: sampled from a policy of this project; imported: came with an import, written by a system that its `system` names; person: written or corrected by a person'),
    sa.Column('purpose', sa.Enum('labelling', 'evaluation', name='responsepurpose', native_enum=False, create_constraint=True, length=24), nullable=False, comment='labelling: to be ranked by people; evaluation: to measure a policy; compared only to gate a promotion'),
    sa.Column('state', sa.Enum('active', 'retired', name='responsestate', native_enum=False, create_constraint=True, length=24), nullable=False, comment="active: may be compared; retired: taken out by an admin or superseded by a newer policy's"),
    sa.Column('policy_id', sa.BigInteger(), nullable=True),
    sa.Column('run_id', sa.BigInteger(), nullable=True),
    sa.Column('import_id', sa.BigInteger(), nullable=True),
    sa.Column('author_id', sa.BigInteger(), nullable=True, comment='the membership of the person who wrote it'),
    sa.Column('system', sa.String(), nullable=True, comment="the imported system's name; never shown to annotators"),
    sa.Column('text', sa.String(), nullable=False),
    sa.Column('parts', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True, comment='content parts where there is more than text'),
    sa.Column('token_ids', postgresql.ARRAY(sa.Integer()), nullable=True),
    sa.Column('finish_reason', sa.Enum('ended', 'cut', name='finishreason', native_enum=False, create_constraint=True, length=24), nullable=False, comment='ended: the writer ended it, a policy with its end token; cut: the longest allowed length cut it off'),
    sa.Column('sampling', postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True, comment='temperature, top_p, longest length'),
    sa.Column('seed', sa.BigInteger(), nullable=True),
    sa.Column('content_hash', sa.String(), nullable=False, comment='sha256 of the content'),
    sa.Column('details', postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
    sa.Column('created_at', sa.DateTime(timezone=True), server_default=sa.text('now()'), nullable=False),
    sa.CheckConstraint("(source = 'policy') = (policy_id IS NOT NULL)", name=op.f('ck_responses_policy_names_its_policy')),
    sa.ForeignKeyConstraint(['project_id', 'author_id'], ['memberships.project_id', 'memberships.id'], name=op.f('fk_responses_project_id_author_id')),
    sa.ForeignKeyConstraint(['project_id', 'import_id'], ['imports.project_id', 'imports.id'], name=op.f('fk_responses_project_id_import_id')),
    sa.ForeignKeyConstraint(['project_id', 'policy_id'], ['policies.project_id', 'policies.id'], name=op.f('fk_responses_project_id_policy_id')),
    sa.ForeignKeyConstraint(['project_id', 'prompt_id'], ['prompts.project_id', 'prompts.id'], name=op.f('fk_responses_project_id_prompt_id')),
    sa.ForeignKeyConstraint(['project_id', 'run_id'], ['runs.project_id', 'runs.id'], name=op.f('fk_responses_project_id_run_id')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_responses')),
    sa.UniqueConstraint('project_id', 'id', name=op.f('uq_responses_project_id_id')),
    sa.UniqueConstraint('prompt_id', 'id', name=op.f('uq_responses_prompt_id_id'))
    )
    op.create_index('ix_responses_policy_id', 'responses', ['policy_id'], unique=False)
    op.create_index('ix_responses_project_id_prompt_id', 'responses', ['project_id', 'prompt_id'], unique=False)
    op.create_index('ix_responses_run_id', 'responses', ['run_id'], unique=False)
    op.create_table('comparison_responses',
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('response_id', sa.BigInteger(), nullable=False),
    sa.Column('prompt_id', sa.BigInteger(), nullable=False),
    sa.Column('place', sa.Integer(), nullable=False, comment='order of storing, 0 first; the order shown is drawn per assignment'),
    sa.CheckConstraint('place BETWEEN 0 AND 8', name=op.f('ck_comparison_responses_at_most_nine')),
    sa.ForeignKeyConstraint(['prompt_id', 'comparison_id'], ['comparisons.prompt_id', 'comparisons.id'], name=op.f('fk_comparison_responses_prompt_id_comparison_id')),
    sa.ForeignKeyConstraint(['prompt_id', 'response_id'], ['responses.prompt_id', 'responses.id'], name=op.f('fk_comparison_responses_prompt_id_response_id')),
    sa.PrimaryKeyConstraint('comparison_id', 'response_id', name=op.f('pk_comparison_responses')),
    sa.UniqueConstraint('comparison_id', 'place', name=op.f('uq_comparison_responses_comparison_id_place'))
    )
    op.create_index('ix_comparison_responses_response_id', 'comparison_responses', ['response_id'], unique=False)
    op.create_table('snapshot_revisions',
    sa.Column('project_id', sa.BigInteger(), nullable=False),
    sa.Column('snapshot_id', sa.BigInteger(), nullable=False),
    sa.Column('revision_id', sa.BigInteger(), nullable=False),
    sa.ForeignKeyConstraint(['project_id', 'revision_id'], ['label_revisions.project_id', 'label_revisions.id'], name=op.f('fk_snapshot_revisions_project_id_revision_id')),
    sa.ForeignKeyConstraint(['project_id', 'snapshot_id'], ['snapshots.project_id', 'snapshots.id'], name=op.f('fk_snapshot_revisions_project_id_snapshot_id')),
    sa.PrimaryKeyConstraint('snapshot_id', 'revision_id', name=op.f('pk_snapshot_revisions'))
    )
    op.create_index('ix_snapshot_revisions_revision_id', 'snapshot_revisions', ['revision_id'], unique=False)
    op.create_table('label_ranks',
    sa.Column('revision_id', sa.BigInteger(), nullable=False),
    sa.Column('response_id', sa.BigInteger(), nullable=False),
    sa.Column('comparison_id', sa.BigInteger(), nullable=False),
    sa.Column('rank', sa.Integer(), nullable=False),
    sa.CheckConstraint('rank BETWEEN 1 AND 9', name=op.f('ck_label_ranks_rank_in_range')),
    sa.ForeignKeyConstraint(['comparison_id', 'response_id'], ['comparison_responses.comparison_id', 'comparison_responses.response_id'], name=op.f('fk_label_ranks_comparison_id_response_id')),
    sa.ForeignKeyConstraint(['comparison_id', 'revision_id'], ['label_revisions.comparison_id', 'label_revisions.id'], name=op.f('fk_label_ranks_comparison_id_revision_id')),
    sa.PrimaryKeyConstraint('revision_id', 'response_id', name=op.f('pk_label_ranks'))
    )
    # these close the circles: project -> version -> project, round -> policy -> round
    op.create_foreign_key('fk_projects_current_version', 'projects', 'project_versions', ['id', 'current_version_id'], ['project_id', 'id'])
    op.create_foreign_key('fk_projects_current_policy', 'projects', 'policies', ['id', 'current_policy_id'], ['project_id', 'id'])
    op.create_foreign_key('fk_rounds_policy', 'rounds', 'policies', ['project_id', 'policy_id'], ['project_id', 'id'])


def downgrade() -> None:
    """Take back."""
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.drop_constraint('fk_projects_current_version', 'projects', type_='foreignkey')
    op.drop_constraint('fk_projects_current_policy', 'projects', type_='foreignkey')
    op.drop_constraint('fk_rounds_policy', 'rounds', type_='foreignkey')
    op.drop_table('label_ranks')
    op.drop_index('ix_snapshot_revisions_revision_id', table_name='snapshot_revisions')
    op.drop_table('snapshot_revisions')
    op.drop_index('ix_comparison_responses_response_id', table_name='comparison_responses')
    op.drop_table('comparison_responses')
    op.drop_index('ix_responses_run_id', table_name='responses')
    op.drop_index('ix_responses_project_id_prompt_id', table_name='responses')
    op.drop_index('ix_responses_policy_id', table_name='responses')
    op.drop_table('responses')
    op.drop_table('policy_scores')
    op.drop_table('label_revisions')
    op.drop_table('policies')
    op.drop_index('ix_labels_project_id_created_at', table_name='labels')
    op.drop_index('ix_labels_annotator_id', table_name='labels')
    op.drop_table('labels')
    op.drop_index('ix_run_metrics_run_id', table_name='run_metrics')
    op.drop_table('run_metrics')
    op.drop_table('reward_models')
    op.drop_table('comparison_assignees')
    op.drop_index('uq_assignments_once', table_name='assignments', postgresql_where=sa.text("state IN ('live', 'submitted')"))
    op.drop_index('ix_assignments_expiring', table_name='assignments', postgresql_where=sa.text("state = 'live'"))
    op.drop_index('ix_assignments_annotator_id', table_name='assignments')
    op.drop_table('assignments')
    op.drop_table('runs')
    op.drop_index('ix_comparisons_round_id', table_name='comparisons')
    op.drop_index('ix_comparisons_queue', table_name='comparisons', postgresql_where=sa.text("state = 'open' AND openings > 0"))
    op.drop_index('ix_comparisons_prompt_id', table_name='comparisons')
    op.drop_table('comparisons')
    op.drop_index('uq_rounds_one_live', table_name='rounds', postgresql_where=sa.text("state IN ('sampling', 'labelling', 'fitting', 'improving', 'evaluating')"))
    op.drop_table('rounds')
    op.drop_index('uq_prompts_active_content', table_name='prompts', postgresql_where=sa.text("state = 'active'"))
    op.drop_index('ix_prompts_project_id_split', table_name='prompts')
    op.drop_table('prompts')
    op.drop_table('consents')
    op.drop_table('snapshots')
    op.drop_table('project_versions')
    op.drop_index(op.f('ix_memberships_person_id'), table_name='memberships')
    op.drop_table('memberships')
    op.drop_index(op.f('ix_invites_project_id'), table_name='invites')
    op.drop_table('invites')
    op.drop_index(op.f('ix_imports_project_id'), table_name='imports')
    op.drop_table('imports')
    op.drop_index('ix_audit_events_project_id', table_name='audit_events')
    op.drop_table('audit_events')
    op.drop_index(op.f('ix_web_sessions_person_id'), table_name='web_sessions')
    op.drop_table('web_sessions')
    op.drop_index(op.f('ix_sign_in_links_person_id'), table_name='sign_in_links')
    op.drop_table('sign_in_links')
    op.drop_table('projects')
    op.drop_index(op.f('ix_api_tokens_person_id'), table_name='api_tokens')
    op.drop_table('api_tokens')
    op.drop_index('uq_people_email', table_name='people')
    op.drop_table('people')
