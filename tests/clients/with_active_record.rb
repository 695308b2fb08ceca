# Two deployments that run ActiveRecord's migrations at once, under its advisory lock.
#
# The one that gets the lock keeps it until the other has been refused, which then tries again.
# Up to 7.1 ActiveRecord takes a connection of its own for that lock, and closes it; each deployment
# therefore takes locks on the connection that it keeps, too.

require "active_record"
require "logger"

URL = {
  adapter: "postgresql", host: "127.0.0.1", port: ENV.fetch("PGIMBAL_PORT"), database: "app",
  username: "scram", password: "scram-secret", pool: 5
}.freeze
LIMIT = 60

# Where the one who was refused says so, for the one who has the lock.
REFUSED, REFUSAL = IO.pipe

# A migration as a file in db/migrate defines it.
def migration(version, ddl_transaction: true, &change)
  ActiveRecord::Migration.verbose = false
  Class.new(ActiveRecord::Migration[6.1]) do
    disable_ddl_transaction! unless ddl_transaction
    define_method(:up) do
      instance_exec(&change)
      execute("insert into applied values (#{version})")
    end
  end.new("Migration#{version}", version)
end

def migrations
  [
    migration(1) do
      create_table(:accounts) { |table| table.string :owner, null: false }
      execute("create table applied (version int not null)")
      # The other is refused meanwhile.
      REFUSED.wait_readable(LIMIT) || raise("nobody else came")
    end,
    migration(2) do
      add_column(:accounts, :balance, :decimal, null: false, default: 0)
      execute("insert into accounts (owner, balance) select 'owner ' || n, n from generate_series(1, 100) n")
    end,
    migration(3, ddl_transaction: false) do
      add_index(:accounts, :owner, algorithm: :concurrently)
    end
  ]
end

# What it takes differs by version, and so does what that belongs to.
def migrator
  tables = [ActiveRecord::SchemaMigration, ActiveRecord::InternalMetadata]
  if ActiveRecord.version < Gem::Version.new("7.1")
    tables.pop
  else
    pooled = ActiveRecord.version >= Gem::Version.new("7.2")
    owner = pooled ? ActiveRecord::Base.connection_pool : ActiveRecord::Base.connection
    tables.map! { |table| table.new(owner) }
  end
  ActiveRecord::Migrator.new(:up, migrations, *tables)
end

class Account < ActiveRecord::Base; end

def deploy
  ActiveRecord::Base.establish_connection(URL)
  refusals = 0
  finish = Process.clock_gettime(Process::CLOCK_MONOTONIC) + LIMIT
  begin
    migrator.migrate
  rescue ActiveRecord::ConcurrentMigrationError => error
    raise if Process.clock_gettime(Process::CLOCK_MONOTONIC) > finish
    raise unless error.message.include?("Cannot run migrations because another migration process")
    refusals += 1
    REFUSAL.write("!")
    sleep(0.02)
    retry
  end
  # What the service does next, on the connection that it keeps.
  Account.reset_column_information
  20.times do
    raise "a wrong count" unless Account.count == 100
    Account.transaction { Account.where(owner: "owner 7").update_all("balance = balance") }
    raise "not found" unless Account.find_by(owner: "owner 9").balance == 9
  end
  # A lock of the service's own, on the same connection, refused while the other has it.
  connection = ActiveRecord::Base.connection
  20.times do
    until connection.get_advisory_lock(4711)
      raise "nobody gives the lock back" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > finish
      sleep(0.001)
    end
    Account.where(owner: "owner 3").update_all("balance = balance + 1")
    raise "somebody has the lock too" unless Account.where(owner: "owner 3").update_all("balance = 3") == 1
    raise "the lock is lost" unless connection.release_advisory_lock(4711)
  end
  zone = ActiveRecord::Base.connection.select_value("show timezone")
  raise "the settings are lost: #{zone}" unless zone == "UTC"
  refusals
end

# Its own two tables are made outside of the lock, so a first deployment went before these two.
ActiveRecord::Base.establish_connection(URL)
migrator
ActiveRecord::Base.remove_connection

children = 2.times.map do
  answer, say = IO.pipe
  wait, go = IO.pipe
  pid = fork do
    begin
      refusals = deploy
      say.puts("done #{refusals}")
      go.close
      wait.read
      exit!(0)
    rescue Exception => error # rubocop:disable Lint/RescueException
      $stderr.puts(error.full_message(highlight: false))
      # Nobody waits for who is gone.
      REFUSAL.write("!")
      exit!(1)
    end
  end
  say.close
  wait.close
  [pid, answer, go]
end

answers = children.map { |_, answer, _| answer.gets }
abort("a deployment failed: #{answers}") unless answers.all?
refusals = answers.sum { |answer| answer.split.last.to_i }
puts("refused #{refusals} times")
abort("nobody was refused") if refusals.zero?
puts("look at both")
$stdout.flush
$stdin.gets
children.each { |_, _, go| go.close }
abort("a deployment failed") unless children.all? { |pid, _, _| Process.wait2(pid).last.success? }
puts("all done")
