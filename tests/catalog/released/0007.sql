BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE artifacts (
	sha256 VARCHAR(64) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	data BLOB NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_artifacts PRIMARY KEY (sha256)
);
INSERT INTO "artifacts" VALUES('ccb2db42a305e3ba09f36a04e74b9b7f497c083a3749568a31acb87f88c3028d','rows',X'78DAAB56CA494C4ACD51B252504ACA294D55D251502A49AD2801F18BB32B956AB9AA110A8A525390E58BF28B53810A009AA913A2','2026-01-01 00:00:00.000000');
INSERT INTO "artifacts" VALUES('cd5e3b86cde18e4a038dc51c361cd0ee01c1442882f731fa5f047cb14b5f102f','adapter-config',X'7B22706566745F74797065223A202250524F4D50545F54554E494E47227D','2026-01-01 00:00:00.000000');
INSERT INTO "artifacts" VALUES('64d2782dfd31ef37d34b71e69a98bbe3904014a044deade9de0c9e4bf3986e2d','adapter-weights',X'77656967687473206F6620636F6C6F75722030','2026-01-01 00:00:00.000000');
INSERT INTO "artifacts" VALUES('557685a4689d0c7e0f26cbd94241e8ada0997f4eb4fff3a5623275b606f64725','adapter-weights',X'77656967687473206F6620636F6C6F75722031','2026-01-01 00:00:00.000000');
CREATE TABLE base_models (
	id INTEGER NOT NULL, 
	name VARCHAR(500) NOT NULL, 
	source TEXT NOT NULL, 
	revision TEXT NOT NULL, 
	architecture TEXT NOT NULL, 
	dtype VARCHAR(20) NOT NULL, 
	weights VARCHAR(80) NOT NULL, 
	tokenizer VARCHAR(80) NOT NULL, 
	config VARCHAR(80) NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_base_models PRIMARY KEY (id), 
	CONSTRAINT uq_base_models_weights_tokenizer_config_dtype UNIQUE (weights, tokenizer, config, dtype)
);
INSERT INTO "base_models" VALUES(1,'tiny','hub/tiny','main','Llama','float32','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','c','2026-01-01 00:00:00.000000');
INSERT INTO "base_models" VALUES(2,'tiny','hub/tiny','main','Llama','float32','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','c','2026-01-01 00:00:00.000000');
CREATE TABLE baselines (
	id INTEGER NOT NULL, 
	version_id INTEGER NOT NULL, 
	evaluation_id INTEGER NOT NULL, 
	task_file_id INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_baselines PRIMARY KEY (id), 
	CONSTRAINT fk_baselines_version_id FOREIGN KEY(version_id) REFERENCES prompt_versions (id), 
	CONSTRAINT fk_baselines_task_file_id FOREIGN KEY(task_file_id) REFERENCES task_files (id), 
	CONSTRAINT fk_baselines_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "baselines" VALUES(1,2,4,1,'2026-01-01 00:00:00.000000');
CREATE TABLE check_results (
	id INTEGER NOT NULL, 
	check_id INTEGER NOT NULL, 
	version_id INTEGER NOT NULL, 
	evaluation_id INTEGER, 
	baseline FLOAT NOT NULL, 
	score FLOAT, 
	max_drop FLOAT NOT NULL, 
	verdict VARCHAR(20) NOT NULL, 
	cause TEXT NOT NULL, evidence JSON, 
	CONSTRAINT pk_check_results PRIMARY KEY (id), 
	CONSTRAINT fk_check_results_check_id FOREIGN KEY(check_id) REFERENCES checks (id), 
	CONSTRAINT fk_check_results_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id), 
	CONSTRAINT fk_check_results_version_id FOREIGN KEY(version_id) REFERENCES prompt_versions (id)
);
CREATE TABLE checkpoints (
	task_id INTEGER NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	data BLOB NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_checkpoints PRIMARY KEY (task_id), 
	CONSTRAINT fk_checkpoints_task_id FOREIGN KEY(task_id) REFERENCES tasks (id)
);
CREATE TABLE checks (
	id INTEGER NOT NULL, 
	version_id INTEGER, 
	passed INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	created_at DATETIME NOT NULL, job TEXT, evaluated INTEGER DEFAULT '0' NOT NULL, canaries INTEGER DEFAULT '0' NOT NULL, reused INTEGER DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_checks PRIMARY KEY (id), 
	CONSTRAINT fk_checks_version_id FOREIGN KEY(version_id) REFERENCES prompt_versions (id)
);
INSERT INTO "checks" VALUES(1,1,1,1.0,'2026-01-01 00:00:00.000000',NULL,0,0,0);
INSERT INTO "checks" VALUES(2,2,1,1.0,'2026-01-01 00:00:00.000000',NULL,0,0,0);
CREATE TABLE comparisons (
	baseline_id INTEGER NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	evaluation_id INTEGER, 
	result JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_comparisons PRIMARY KEY (baseline_id, "key"), 
	CONSTRAINT fk_comparisons_baseline_id FOREIGN KEY(baseline_id) REFERENCES evaluations (id), 
	CONSTRAINT fk_comparisons_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
CREATE TABLE data_snapshots (
	id INTEGER NOT NULL, 
	fingerprint VARCHAR(80) NOT NULL, 
	split TEXT NOT NULL, 
	rows INTEGER NOT NULL, 
	sha256 VARCHAR(64), 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_data_snapshots PRIMARY KEY (id), 
	CONSTRAINT fk_data_snapshots_sha256 FOREIGN KEY(sha256) REFERENCES artifacts (sha256), 
	CONSTRAINT uq_data_snapshots_fingerprint UNIQUE (fingerprint)
);
INSERT INTO "data_snapshots" VALUES(1,'sha256:88b7f3aa76d3bdc8b859a6fb2f99c1f6ec078a2b48f4bf9453f89dae60bfbed3','test',2,'ccb2db42a305e3ba09f36a04e74b9b7f497c083a3749568a31acb87f88c3028d','2026-01-01 00:00:00.000000');
CREATE TABLE data_sources (
	digest VARCHAR(80) NOT NULL, 
	fingerprint VARCHAR(80) NOT NULL, 
	CONSTRAINT pk_data_sources PRIMARY KEY (digest)
);
CREATE TABLE evaluation_results (
	evaluation_id INTEGER NOT NULL, 
	results BLOB NOT NULL, canaries BLOB, 
	CONSTRAINT pk_evaluation_results PRIMARY KEY (evaluation_id), 
	CONSTRAINT fk_evaluation_results_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "evaluation_results" VALUES(1,X'789CAB562A284A4DC94C2EC9CCCF2B56B2528836D051308CD551502A4A4D4B2D4ACD4B4E85891AC4D60200547A0E10',NULL);
INSERT INTO "evaluation_results" VALUES(2,X'789CAB562A284A4DC94C2EC9CCCF2B56B2528836D051308CD551502A4A4D4B2D4ACD4B4E85891AC4D60200547A0E10',X'789C8BAE56CACC4B49AD50B25230D051502ACA2F07B2AA954A522B4A800CA5E2EC4A25A0704E62526A0E889F94539AAA540B1429284A4DC94C2EC9CCCF03E9048A20CC31C4624E517E712A8A4140ED98E618D6C6020033B82B6A');
INSERT INTO "evaluation_results" VALUES(3,X'789CAB562A284A4DC94C2EC9CCCF2B56B2528836D051308CD551502A4A4D4B2D4ACD4B4E85891AC4D60200547A0E10',X'789C8BAE56CACC4B49AD50B25230D051502ACA2F07B2AA954A522B4A800CA5E2EC4A25A0704E62526A0E889F94539AAA540B1429284A4DC94C2EC9CCCF03E9048A20CC31C4624E517E712A8A4140ED98E618D6C6020033B82B6A');
INSERT INTO "evaluation_results" VALUES(4,X'789CAB562A284A4DC94C2EC9CCCF2B56B2528836D051308CD551502A4A4D4B2D4ACD4B4E85891AC4D60200547A0E10',X'789C8BAE56CACC4B49AD50B25230D051502ACA2F07B2AA954A522B4A800CA5E2EC4A25A0704E62526A0E889F94539AAA540B1429284A4DC94C2EC9CCCF03E9048A20CC31C4624E517E712A8A4140ED98E618D6C6020033B82B6A');
CREATE TABLE evaluation_scores (
	evaluation_id INTEGER NOT NULL, 
	metric VARCHAR(200) NOT NULL, 
	score FLOAT NOT NULL, 
	CONSTRAINT pk_evaluation_scores PRIMARY KEY (evaluation_id, metric), 
	CONSTRAINT fk_evaluation_scores_evaluation_id FOREIGN KEY(evaluation_id) REFERENCES evaluations (id)
);
INSERT INTO "evaluation_scores" VALUES(1,'acc',0.1);
INSERT INTO "evaluation_scores" VALUES(1,'macro_f1',0.05);
INSERT INTO "evaluation_scores" VALUES(2,'acc',0.5);
INSERT INTO "evaluation_scores" VALUES(2,'macro_f1',0.25);
INSERT INTO "evaluation_scores" VALUES(3,'acc',0.6);
INSERT INTO "evaluation_scores" VALUES(3,'macro_f1',0.3);
INSERT INTO "evaluation_scores" VALUES(4,'acc',0.55);
INSERT INTO "evaluation_scores" VALUES(4,'macro_f1',0.275);
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	version_id INTEGER, 
	snapshot_id INTEGER NOT NULL, 
	kind VARCHAR(10) NOT NULL, 
	metric VARCHAR(200) NOT NULL, 
	score FLOAT NOT NULL, 
	higher_is_better INTEGER NOT NULL, 
	metrics JSON NOT NULL, 
	"key" VARCHAR(80) NOT NULL, 
	key_parts JSON NOT NULL, 
	rows INTEGER NOT NULL, 
	truncated INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_evaluations PRIMARY KEY (id), 
	CONSTRAINT ck_evaluations_kind CHECK (kind in ('soft', 'hard')), 
	CONSTRAINT fk_evaluations_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES data_snapshots (id), 
	CONSTRAINT fk_evaluations_task_id FOREIGN KEY(task_id) REFERENCES tasks (id), 
	CONSTRAINT fk_evaluations_version_id FOREIGN KEY(version_id) REFERENCES prompt_versions (id)
);
INSERT INTO "evaluations" VALUES(1,1,NULL,1,'hard','acc',0.1,1,'{"acc": 0.1, "macro_f1": 0.05}','sha256:3f1b2d3ed85ebcbc69de4dd48919516e0b7fa099bdba7387c015cf8893330e92','{"prompt": "hard", "task": "colour"}',2,1,0.25,'2026-01-01 00:00:00.000000');
INSERT INTO "evaluations" VALUES(2,1,1,1,'soft','acc',0.5,1,'{"acc": 0.5, "macro_f1": 0.25}','sha256:7387e53295290a8de063cb1922d4565754d37fafede82f22f4f3ac1928d8f0a4','{"prompt": "colour 0.5", "weights": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',2,1,0.25,'2026-01-01 00:00:00.000000');
INSERT INTO "evaluations" VALUES(3,1,2,1,'soft','acc',0.6,1,'{"acc": 0.6, "macro_f1": 0.3}','sha256:af1664ce2a97e00cd5dd4ca94f576b8b6c2abb131c400199a8549ac68def3476','{"prompt": "colour 0.6", "weights": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}',2,1,0.25,'2026-01-01 00:00:00.000000');
INSERT INTO "evaluations" VALUES(4,1,2,1,'soft','acc',0.55,1,'{"acc": 0.55, "macro_f1": 0.275}','sha256:4bfde69d2807aab588a4c67c56dc1e154bc153484dcb08230f61fbc204ecfd33','{"prompt": "again"}',2,1,0.25,'2026-01-01 00:00:00.000000');
CREATE TABLE events (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	actor TEXT NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	task_id INTEGER, 
	from_version INTEGER, 
	to_version INTEGER, 
	reason TEXT NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (id), 
	CONSTRAINT fk_events_task_id FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "events" VALUES(1,'2026-01-01 00:00:00.000000','tester','base-model-bound',NULL,NULL,NULL,'tiny (sha256:aaaaaaaa…, tokenizer sha256:bbbbbbbb…, float32)');
INSERT INTO "events" VALUES(2,'2026-01-01 00:00:00.000000','tester','task-added',1,NULL,NULL,'sha256:d6726b72a09d5af480af2d572be8bac1653c7b47ad1f41e97f93476549275281');
INSERT INTO "events" VALUES(3,'2026-01-01 00:00:00.000000','tester','published',1,NULL,1,'better');
INSERT INTO "events" VALUES(4,'2026-01-01 00:00:00.000000','tester','published',1,1,2,'better');
INSERT INTO "events" VALUES(5,'2026-01-01 00:00:00.000000','tester','blessed',1,2,2,'labels mended');
INSERT INTO "events" VALUES(6,'2026-01-01 00:00:00.000000','tester','noted',1,NULL,NULL,'naïve annotators');
INSERT INTO "events" VALUES(7,'2026-01-01 00:00:00.000000','tester','base-model-renewed',NULL,NULL,NULL,'tiny (sha256:aaaaaaaa…, tokenizer sha256:bbbbbbbb…, float32) is now identified as tiny (sha256:aaaaaaaa…, tokenizer sha256:cccccccc…, float32)');
CREATE TABLE job_claims (
	job TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	step TEXT NOT NULL, 
	done INTEGER NOT NULL, 
	total INTEGER NOT NULL, 
	updated_at DATETIME NOT NULL, 
	CONSTRAINT pk_job_claims PRIMARY KEY (job)
);
CREATE TABLE job_logs (
	id INTEGER NOT NULL, 
	job TEXT NOT NULL, 
	at DATETIME NOT NULL, 
	level VARCHAR(10) NOT NULL, 
	worker TEXT NOT NULL, 
	message TEXT NOT NULL, 
	CONSTRAINT pk_job_logs PRIMARY KEY (id)
);
CREATE TABLE job_results (
	job TEXT NOT NULL, 
	step VARCHAR(20) NOT NULL, 
	name TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT pk_job_results PRIMARY KEY (job, step, name)
);
CREATE TABLE lineage (
	id INTEGER NOT NULL, 
	child_id INTEGER NOT NULL, 
	relation VARCHAR(30) NOT NULL, 
	parent_id INTEGER, 
	parent_label TEXT NOT NULL, 
	CONSTRAINT pk_lineage PRIMARY KEY (id), 
	CONSTRAINT ck_lineage_relation CHECK (relation in ('retrained-from', 'initialised-from', 'transferred-from', 'composed-of', 'imported-from')), 
	CONSTRAINT fk_lineage_child_id FOREIGN KEY(child_id) REFERENCES prompt_versions (id), 
	CONSTRAINT fk_lineage_parent_id FOREIGN KEY(parent_id) REFERENCES prompt_versions (id)
);
CREATE TABLE prompt_versions (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	method VARCHAR(40) NOT NULL, 
	num_virtual_tokens INTEGER NOT NULL, 
	base_model_id INTEGER NOT NULL, 
	task_file_id INTEGER NOT NULL, 
	run_id INTEGER, 
	config_sha256 VARCHAR(64) NOT NULL, 
	weights_sha256 VARCHAR(64) NOT NULL, 
	digest VARCHAR(80) NOT NULL, 
	baseline_id INTEGER, 
	reason TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	published_at DATETIME, 
	retired_at DATETIME, encoder_sha256 VARCHAR(64) CONSTRAINT fk_prompt_versions_encoder_sha256 REFERENCES artifacts (sha256), 
	CONSTRAINT pk_prompt_versions PRIMARY KEY (id), 
	CONSTRAINT ck_prompt_versions_state CHECK (state in ('candidate', 'published', 'retired', 'rejected')), 
	CONSTRAINT ck_prompt_versions_baseline CHECK (state in ('candidate', 'rejected') or baseline_id is not null), 
	CONSTRAINT fk_prompt_versions_base_model_id FOREIGN KEY(base_model_id) REFERENCES base_models (id), 
	CONSTRAINT fk_prompt_versions_baseline_id FOREIGN KEY(baseline_id) REFERENCES evaluations (id), 
	CONSTRAINT fk_prompt_versions_config_sha256 FOREIGN KEY(config_sha256) REFERENCES artifacts (sha256), 
	CONSTRAINT fk_prompt_versions_run_id FOREIGN KEY(run_id) REFERENCES runs (id), 
	CONSTRAINT fk_prompt_versions_task_file_id FOREIGN KEY(task_file_id) REFERENCES task_files (id), 
	CONSTRAINT fk_prompt_versions_task_id FOREIGN KEY(task_id) REFERENCES tasks (id), 
	CONSTRAINT fk_prompt_versions_weights_sha256 FOREIGN KEY(weights_sha256) REFERENCES artifacts (sha256), 
	CONSTRAINT uq_prompt_versions_task_id_number UNIQUE (task_id, number)
);
INSERT INTO "prompt_versions" VALUES(1,1,1,'retired','prompt-tuning',4,1,1,NULL,'cd5e3b86cde18e4a038dc51c361cd0ee01c1442882f731fa5f047cb14b5f102f','64d2782dfd31ef37d34b71e69a98bbe3904014a044deade9de0c9e4bf3986e2d','sha256:5142d540caf499b50fc738e36e3b7be7bcf6ced3ec9c19bf9de7a09d3cd85760',2,'better','2026-01-01 00:00:00.000000','2026-01-01 00:00:00.000000','2026-01-01 00:00:00.000000',NULL);
INSERT INTO "prompt_versions" VALUES(2,1,2,'published','prompt-tuning',4,1,1,NULL,'cd5e3b86cde18e4a038dc51c361cd0ee01c1442882f731fa5f047cb14b5f102f','557685a4689d0c7e0f26cbd94241e8ada0997f4eb4fff3a5623275b606f64725','sha256:b3880ace8d757daa5c59d6b0bd3b2178387cb8c6caeb8232f7f517f8575af2bf',3,'better','2026-01-01 00:00:00.000000','2026-01-01 00:00:00.000000',NULL,NULL);
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	training_snapshot_id INTEGER NOT NULL, 
	validation_snapshot_id INTEGER NOT NULL, 
	settings JSON NOT NULL, 
	environment JSON NOT NULL, 
	losses JSON NOT NULL, 
	validations JSON NOT NULL, 
	best_step INTEGER NOT NULL, 
	truncated INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	created_at DATETIME NOT NULL, job TEXT, 
	CONSTRAINT pk_runs PRIMARY KEY (id), 
	CONSTRAINT fk_runs_task_id FOREIGN KEY(task_id) REFERENCES tasks (id), 
	CONSTRAINT fk_runs_training_snapshot_id FOREIGN KEY(training_snapshot_id) REFERENCES data_snapshots (id), 
	CONSTRAINT fk_runs_validation_snapshot_id FOREIGN KEY(validation_snapshot_id) REFERENCES data_snapshots (id)
);
CREATE TABLE schedules (
	name VARCHAR(300) NOT NULL, 
	kind VARCHAR(20) NOT NULL, 
	task VARCHAR(200), 
	cron TEXT, 
	every_seconds FLOAT, 
	watch VARCHAR(20), 
	timezone TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	active INTEGER NOT NULL, 
	seen TEXT NOT NULL, 
	next_at DATETIME, 
	last_at DATETIME, 
	last_job TEXT, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_schedules PRIMARY KEY (name), 
	CONSTRAINT fk_schedules_task FOREIGN KEY(task) REFERENCES tasks (name)
);
CREATE TABLE settings (
	id INTEGER NOT NULL, 
	base_model_id INTEGER, 
	base_model_source TEXT, 
	dtype VARCHAR(20) NOT NULL, 
	epoch INTEGER NOT NULL, forward TEXT, policy VARCHAR(20) DEFAULT 'block' NOT NULL, 
	CONSTRAINT pk_settings PRIMARY KEY (id), 
	CONSTRAINT fk_settings_base_model_id FOREIGN KEY(base_model_id) REFERENCES base_models (id), 
	CONSTRAINT ck_settings_single CHECK (id = 1)
);
INSERT INTO "settings" VALUES(1,2,'hub/tiny','float32',2,NULL,'block');
CREATE TABLE task_files (
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	fingerprint VARCHAR(80) NOT NULL, 
	source TEXT NOT NULL, 
	folder TEXT NOT NULL, 
	description TEXT NOT NULL, 
	metric VARCHAR(200) NOT NULL, 
	tags JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	CONSTRAINT pk_task_files PRIMARY KEY (id), 
	CONSTRAINT fk_task_files_task_id FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "task_files" VALUES(1,1,'sha256:d6726b72a09d5af480af2d572be8bac1653c7b47ad1f41e97f93476549275281','task: colour
dataset_path: json
dataset_kwargs:
  data_files:
    train: train.jsonl
    validation: validation.jsonl
    test: test.jsonl
training_split: train
validation_split: validation
test_split: test
description: ''Which colour?

  ''
doc_to_text: ''{{text}}

  Answer:''
multiprompt:
  num_virtual_tokens: 4
  training:
    steps: 6
    batch_size: 4
    validate_every: 3
  regression:
    floor: none
output_type: multiple_choice
doc_to_target: label
doc_to_choice:
- red
- green
- blue
- yellow
metric_list:
- metric: acc
','/srv/tasks','Which colour?','acc','[]','2026-01-01 00:00:00.000000');
CREATE VIRTUAL TABLE task_search USING fts5(words, content='task_texts', content_rowid='task_id');
CREATE TABLE task_tags (
	task_file_id INTEGER NOT NULL, 
	tag TEXT NOT NULL, 
	CONSTRAINT pk_task_tags PRIMARY KEY (task_file_id, tag), 
	CONSTRAINT fk_task_tags_task_file_id FOREIGN KEY(task_file_id) REFERENCES task_files (id)
);
CREATE TABLE task_texts (
	task_id INTEGER NOT NULL, 
	words TEXT NOT NULL, 
	CONSTRAINT pk_task_texts PRIMARY KEY (task_id), 
	CONSTRAINT fk_task_texts_task_id FOREIGN KEY(task_id) REFERENCES tasks (id)
);
INSERT INTO "task_texts" VALUES(1,'colour which naive annotators');
CREATE TABLE tasks (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	task_file_id INTEGER, 
	created_at DATETIME NOT NULL, guarded INTEGER DEFAULT '0' NOT NULL, file TEXT, 
	CONSTRAINT pk_tasks PRIMARY KEY (id), 
	CONSTRAINT fk_tasks_task_file_id FOREIGN KEY(task_file_id) REFERENCES task_files (id), 
	CONSTRAINT uq_tasks_name UNIQUE (name)
);
INSERT INTO "tasks" VALUES(1,'colour',1,'2026-01-01 00:00:00.000000',0,'');
CREATE TABLE trash (
	sha256 VARCHAR(64) NOT NULL, 
	since DATETIME NOT NULL, 
	CONSTRAINT pk_trash PRIMARY KEY (sha256), 
	CONSTRAINT fk_trash_sha256 FOREIGN KEY(sha256) REFERENCES artifacts (sha256)
);
CREATE TABLE workers (
	id VARCHAR(40) NOT NULL, 
	name TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	slots INTEGER NOT NULL, 
	beats INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	beat_at DATETIME NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_tasks_task_file_id ON tasks (task_file_id);
CREATE INDEX ix_data_snapshots_sha256 ON data_snapshots (sha256);
CREATE INDEX ix_task_files_task_id ON task_files (task_id);
CREATE INDEX ix_runs_task_id ON runs (task_id);
CREATE INDEX ix_runs_training_snapshot_id ON runs (training_snapshot_id);
CREATE INDEX ix_runs_validation_snapshot_id ON runs (validation_snapshot_id);
CREATE INDEX ix_prompt_versions_base_model_id ON prompt_versions (base_model_id);
CREATE INDEX ix_prompt_versions_baseline_id ON prompt_versions (baseline_id);
CREATE INDEX ix_prompt_versions_config_sha256 ON prompt_versions (config_sha256);
CREATE INDEX ix_prompt_versions_run_id ON prompt_versions (run_id);
CREATE INDEX ix_prompt_versions_task_file_id ON prompt_versions (task_file_id);
CREATE INDEX ix_prompt_versions_task_id ON prompt_versions (task_id);
CREATE INDEX ix_prompt_versions_weights_sha256 ON prompt_versions (weights_sha256);
CREATE UNIQUE INDEX uq_prompt_versions_published ON prompt_versions (task_id) WHERE state = 'published';
CREATE INDEX ix_checks_version_id ON checks (version_id);
CREATE INDEX ix_evaluations_key ON evaluations ("key");
CREATE INDEX ix_evaluations_snapshot_id ON evaluations (snapshot_id);
CREATE INDEX ix_evaluations_task_id ON evaluations (task_id);
CREATE INDEX ix_evaluations_version_id ON evaluations (version_id);
CREATE INDEX ix_lineage_child_id ON lineage (child_id);
CREATE INDEX ix_lineage_parent_id ON lineage (parent_id);
CREATE INDEX ix_check_results_check_id ON check_results (check_id);
CREATE INDEX ix_check_results_evaluation_id ON check_results (evaluation_id);
CREATE INDEX ix_check_results_version_id ON check_results (version_id);
CREATE TRIGGER versions_baseline_kept BEFORE UPDATE ON prompt_versions FOR EACH ROW WHEN OLD.state IN ('published', 'retired') AND (NEW.baseline_id IS NOT OLD.baseline_id OR NEW.reason IS NOT OLD.reason) BEGIN SELECT RAISE(ABORT, 'the baseline of a published version cannot be changed'); END;
CREATE TRIGGER versions_moves BEFORE UPDATE ON prompt_versions FOR EACH ROW WHEN NOT ((OLD.state = 'candidate' AND NEW.state IN ('candidate', 'published', 'rejected')) OR (OLD.state = 'published' AND NEW.state IN ('published', 'retired')) OR (OLD.state = 'retired' AND NEW.state IN ('retired', 'published')) OR (OLD.state = 'rejected' AND NEW.state = 'rejected')) BEGIN SELECT RAISE(ABORT, 'this change of state is not allowed'); END;
CREATE TRIGGER versions_one_published BEFORE UPDATE ON prompt_versions FOR EACH ROW WHEN NEW.state = 'published' AND EXISTS (SELECT 1 FROM prompt_versions v WHERE v.task_id = NEW.task_id AND v.state = 'published' AND v.id <> OLD.id) BEGIN SELECT RAISE(ABORT, 'the task has a published version already'); END;
CREATE TRIGGER versions_times_kept BEFORE UPDATE ON prompt_versions FOR EACH ROW WHEN OLD.state = NEW.state AND OLD.state <> 'candidate' AND (NEW.published_at IS NOT OLD.published_at OR NEW.retired_at IS NOT OLD.retired_at) BEGIN SELECT RAISE(ABORT, 'the times of a prompt version move with its state only'); END;
CREATE TRIGGER versions_kept BEFORE DELETE ON prompt_versions FOR EACH ROW WHEN OLD.state IN ('published', 'retired') BEGIN SELECT RAISE(ABORT, 'a published prompt version cannot be deleted'); END;
CREATE TRIGGER versions_not_replaced BEFORE INSERT ON prompt_versions FOR EACH ROW WHEN EXISTS (SELECT 1 FROM prompt_versions WHERE id = NEW.id) OR EXISTS (SELECT 1 FROM prompt_versions WHERE task_id = NEW.task_id AND number = NEW.number) OR NEW.state <> 'candidate' BEGIN SELECT RAISE(ABORT, 'a prompt version starts as a candidate with a number of its own'); END;
CREATE TRIGGER artifacts_frozen BEFORE UPDATE ON artifacts FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'an artifact cannot be changed'); END;
CREATE TRIGGER artifacts_not_replaced BEFORE INSERT ON artifacts FOR EACH ROW WHEN EXISTS (SELECT 1 FROM artifacts WHERE sha256 = NEW.sha256) OR EXISTS (SELECT 1 FROM artifacts WHERE rowid = NEW.rowid) BEGIN SELECT RAISE(ABORT, 'an artifact cannot be replaced'); END;
CREATE TRIGGER lineage_frozen BEFORE UPDATE ON lineage FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'lineage cannot be changed'); END;
CREATE TRIGGER lineage_kept BEFORE DELETE ON lineage FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'lineage cannot be deleted'); END;
CREATE TRIGGER lineage_not_replaced BEFORE INSERT ON lineage FOR EACH ROW WHEN EXISTS (SELECT 1 FROM lineage WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'lineage cannot be replaced'); END;
CREATE TRIGGER evaluations_frozen BEFORE UPDATE ON evaluations FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'an evaluation cannot be changed'); END;
CREATE TRIGGER evaluations_not_replaced BEFORE INSERT ON evaluations FOR EACH ROW WHEN EXISTS (SELECT 1 FROM evaluations WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'an evaluation cannot be replaced'); END;
CREATE TRIGGER events_frozen BEFORE UPDATE ON events FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'events cannot be changed'); END;
CREATE TRIGGER events_kept BEFORE DELETE ON events FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'events cannot be deleted'); END;
CREATE TRIGGER events_not_replaced BEFORE INSERT ON events FOR EACH ROW WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'events cannot be replaced'); END;
CREATE TRIGGER base_models_frozen BEFORE UPDATE ON base_models FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of base_models cannot be changed'); END;
CREATE TRIGGER base_models_kept BEFORE DELETE ON base_models FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of base_models cannot be deleted'); END;
CREATE TRIGGER base_models_not_replaced BEFORE INSERT ON base_models FOR EACH ROW WHEN EXISTS (SELECT 1 FROM base_models WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'a row of base_models cannot be replaced'); END;
CREATE TRIGGER task_files_frozen BEFORE UPDATE ON task_files FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of task_files cannot be changed'); END;
CREATE TRIGGER task_files_kept BEFORE DELETE ON task_files FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of task_files cannot be deleted'); END;
CREATE TRIGGER task_files_not_replaced BEFORE INSERT ON task_files FOR EACH ROW WHEN EXISTS (SELECT 1 FROM task_files WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'a row of task_files cannot be replaced'); END;
CREATE TRIGGER data_snapshots_frozen BEFORE UPDATE ON data_snapshots FOR EACH ROW WHEN OLD.sha256 IS NOT NULL OR NEW.id IS NOT OLD.id OR NEW.fingerprint IS NOT OLD.fingerprint OR NEW.split IS NOT OLD.split OR NEW.rows IS NOT OLD.rows OR NEW.created_at IS NOT OLD.created_at BEGIN SELECT RAISE(ABORT, 'a row of data_snapshots cannot be changed'); END;
CREATE TRIGGER data_snapshots_kept BEFORE DELETE ON data_snapshots FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of data_snapshots cannot be deleted'); END;
CREATE TRIGGER data_snapshots_not_replaced BEFORE INSERT ON data_snapshots FOR EACH ROW WHEN EXISTS (SELECT 1 FROM data_snapshots WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'a row of data_snapshots cannot be replaced'); END;
CREATE TRIGGER tasks_frozen BEFORE UPDATE ON tasks FOR EACH ROW WHEN NEW.id IS NOT OLD.id OR NEW.name IS NOT OLD.name OR NEW.created_at IS NOT OLD.created_at BEGIN SELECT RAISE(ABORT, 'a row of tasks cannot be changed'); END;
CREATE TRIGGER tasks_kept BEFORE DELETE ON tasks FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a row of tasks cannot be deleted'); END;
CREATE TRIGGER tasks_not_replaced BEFORE INSERT ON tasks FOR EACH ROW WHEN EXISTS (SELECT 1 FROM tasks WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'a row of tasks cannot be replaced'); END;
CREATE INDEX ix_prompt_versions_encoder_sha256 ON prompt_versions (encoder_sha256);
CREATE TRIGGER versions_frozen BEFORE UPDATE ON prompt_versions FOR EACH ROW WHEN NEW.id IS NOT OLD.id OR NEW.task_id IS NOT OLD.task_id OR NEW.number IS NOT OLD.number OR NEW.method IS NOT OLD.method OR NEW.num_virtual_tokens IS NOT OLD.num_virtual_tokens OR NEW.base_model_id IS NOT OLD.base_model_id OR NEW.task_file_id IS NOT OLD.task_file_id OR NEW.run_id IS NOT OLD.run_id OR NEW.config_sha256 IS NOT OLD.config_sha256 OR NEW.weights_sha256 IS NOT OLD.weights_sha256 OR NEW.digest IS NOT OLD.digest OR NEW.created_at IS NOT OLD.created_at OR NEW.encoder_sha256 IS NOT OLD.encoder_sha256 BEGIN SELECT RAISE(ABORT, 'a prompt version cannot be changed'); END;
CREATE TRIGGER artifacts_kept BEFORE DELETE ON artifacts FOR EACH ROW WHEN EXISTS (SELECT 1 FROM prompt_versions v WHERE v.state IN ('published', 'retired') AND OLD.sha256 IN (v.config_sha256, v.weights_sha256, v.encoder_sha256)) OR EXISTS (SELECT 1 FROM data_snapshots s WHERE s.sha256 = OLD.sha256) BEGIN SELECT RAISE(ABORT, 'an artifact of a published version cannot be deleted'); END;
CREATE INDEX ix_events_task_id_at_kind ON events (task_id, at, kind);
CREATE INDEX ix_events_at ON events (at);
CREATE INDEX ix_check_results_verdict ON check_results (verdict);
CREATE INDEX ix_prompt_versions_state ON prompt_versions (state);
CREATE INDEX ix_prompt_versions_created_at ON prompt_versions (created_at);
CREATE INDEX ix_prompt_versions_published_at ON prompt_versions (published_at);
CREATE INDEX ix_evaluations_created_at ON evaluations (created_at);
CREATE INDEX ix_evaluations_score ON evaluations (score);
CREATE TRIGGER results_frozen BEFORE UPDATE ON evaluation_results FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'results cannot be changed'); END;
CREATE TRIGGER results_not_replaced BEFORE INSERT ON evaluation_results FOR EACH ROW WHEN EXISTS (SELECT 1 FROM evaluation_results WHERE evaluation_id = NEW.evaluation_id) BEGIN SELECT RAISE(ABORT, 'results cannot be replaced'); END;
CREATE TRIGGER task_texts_added AFTER INSERT ON task_texts BEGIN INSERT INTO task_search (rowid, words) VALUES (NEW.task_id, NEW.words); END;
CREATE TRIGGER task_texts_removed AFTER DELETE ON task_texts BEGIN INSERT INTO task_search (task_search, rowid, words) VALUES ('delete', OLD.task_id, OLD.words); END;
CREATE TRIGGER task_texts_changed AFTER UPDATE ON task_texts BEGIN INSERT INTO task_search (task_search, rowid, words) VALUES ('delete', OLD.task_id, OLD.words); INSERT INTO task_search (rowid, words) VALUES (NEW.task_id, NEW.words); END;
CREATE VIEW v_evaluations AS 
        SELECT e.id, t.name AS task, t.name || '@' || v.number AS version, e.kind, e.metric, e.score, e.metrics,
            e.rows, e.truncated, e.seconds, d.fingerprint AS data, e.key, e.created_at
        FROM evaluations e
        JOIN tasks t ON t.id = e.task_id
        JOIN data_snapshots d ON d.id = e.snapshot_id
        LEFT JOIN prompt_versions v ON v.id = e.version_id;
CREATE VIEW v_events AS 
        SELECT e.id, e.at, e.actor, e.kind, t.name AS task, e.from_version, e.to_version, e.reason
        FROM events e LEFT JOIN tasks t ON t.id = e.task_id;
CREATE INDEX ix_job_logs_job ON job_logs (job);
CREATE INDEX ix_schedules_next_at ON schedules (next_at);
CREATE INDEX ix_baselines_version_id ON baselines (version_id);
CREATE INDEX ix_baselines_evaluation_id ON baselines (evaluation_id);
CREATE INDEX ix_baselines_task_file_id ON baselines (task_file_id);
CREATE INDEX ix_comparisons_evaluation_id ON comparisons (evaluation_id);
CREATE TRIGGER baselines_frozen BEFORE UPDATE ON baselines FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a baseline cannot be changed'); END;
CREATE TRIGGER baselines_kept BEFORE DELETE ON baselines FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'a baseline cannot be deleted'); END;
CREATE TRIGGER baselines_not_replaced BEFORE INSERT ON baselines FOR EACH ROW WHEN EXISTS (SELECT 1 FROM baselines WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'a baseline cannot be replaced'); END;
CREATE TRIGGER evaluations_kept BEFORE DELETE ON evaluations FOR EACH ROW WHEN EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.id) OR EXISTS (SELECT 1 FROM baselines b WHERE b.evaluation_id = OLD.id) BEGIN SELECT RAISE(ABORT, 'a baseline cannot be deleted'); END;
CREATE TRIGGER results_kept BEFORE DELETE ON evaluation_results FOR EACH ROW WHEN EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.evaluation_id) OR EXISTS (SELECT 1 FROM baselines b WHERE b.evaluation_id = OLD.evaluation_id) BEGIN SELECT RAISE(ABORT, 'the results of a baseline cannot be deleted'); END;
CREATE INDEX ix_evaluation_scores_metric_score ON evaluation_scores (metric, score);
CREATE TRIGGER scores_frozen BEFORE UPDATE ON evaluation_scores FOR EACH ROW WHEN 1 BEGIN SELECT RAISE(ABORT, 'scores cannot be changed'); END;
CREATE TRIGGER scores_kept BEFORE DELETE ON evaluation_scores FOR EACH ROW WHEN EXISTS (SELECT 1 FROM prompt_versions v WHERE v.baseline_id = OLD.evaluation_id) OR EXISTS (SELECT 1 FROM baselines b WHERE b.evaluation_id = OLD.evaluation_id) BEGIN SELECT RAISE(ABORT, 'the scores of a baseline cannot be deleted'); END;
CREATE TRIGGER scores_not_replaced BEFORE INSERT ON evaluation_scores FOR EACH ROW WHEN EXISTS (SELECT 1 FROM evaluation_scores WHERE evaluation_id = NEW.evaluation_id AND metric = NEW.metric) BEGIN SELECT RAISE(ABORT, 'scores cannot be replaced'); END;
CREATE VIEW v_tasks AS 
        SELECT t.name, f.description, f.tags, f.metric, t.guarded, v.number AS published, v.published_at, e.score,
            t.created_at
        FROM tasks t
        JOIN task_files f ON f.id = t.task_file_id
        LEFT JOIN prompt_versions v ON v.task_id = t.id AND v.state = 'published'
        LEFT JOIN evaluations e ON e.id = coalesce(
            (SELECT b.evaluation_id FROM baselines b WHERE b.version_id = v.id ORDER BY b.id DESC LIMIT 1),
            v.baseline_id);
CREATE VIEW v_versions AS 
        SELECT t.name || '@' || v.number AS version, t.name AS task, v.number, v.state, v.method,
            v.num_virtual_tokens, b.name AS base_model, b.weights AS base_weights, v.digest, e.metric, e.score,
            v.reason, v.created_at, v.published_at, v.retired_at
        FROM prompt_versions v
        JOIN tasks t ON t.id = v.task_id
        JOIN base_models b ON b.id = v.base_model_id
        LEFT JOIN evaluations e ON e.id = coalesce(
            (SELECT b.evaluation_id FROM baselines b WHERE b.version_id = v.id ORDER BY b.id DESC LIMIT 1),
            v.baseline_id);
CREATE VIEW v_lineage AS 
        SELECT t.name || '@' || v.number AS child, l.relation, l.parent_label AS parent
        FROM lineage l JOIN prompt_versions v ON v.id = l.child_id JOIN tasks t ON t.id = v.task_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'runs-on', b.weights
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN base_models b ON b.id = v.base_model_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'trained-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN runs r ON r.id = v.run_id
        JOIN data_snapshots d ON d.id = r.training_snapshot_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'validated-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN runs r ON r.id = v.run_id
        JOIN data_snapshots d ON d.id = r.validation_snapshot_id
        UNION ALL
        SELECT t.name || '@' || v.number, 'evaluated-on', d.fingerprint
        FROM prompt_versions v JOIN tasks t ON t.id = v.task_id JOIN evaluations e ON e.id = coalesce(
            (SELECT b.evaluation_id FROM baselines b WHERE b.version_id = v.id ORDER BY b.id DESC LIMIT 1),
            v.baseline_id)
        JOIN data_snapshots d ON d.id = e.snapshot_id;
INSERT INTO task_search (task_search) VALUES ('rebuild');
COMMIT;
