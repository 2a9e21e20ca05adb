using System.Management.Automation;
using System.Management.Automation.Language;
using System.Management.Automation.Runspaces;
using System.Reflection;
using System.Runtime.InteropServices;

namespace FCtrans.Shell;

/// <summary>
/// One run of the shell: a runspace, and what the command line wants to be run in it.
/// <see cref="Run"/> is called once, by the main thread. Signals come on threads of their own and only ever
/// ask the running pipeline to stop, so that <c>finally</c> blocks and a cmdlet's StopProcessing do their work.
/// </summary>
internal sealed class Session : IDisposable
{
    private const int ExitUsage = 64;
    private const int ExitInterrupted = 130;
    private const int ExitTerminated = 143;

    private readonly CommandLine _line;
    private readonly ShellHost _host;
    private readonly Runspace _runspace;
    private readonly PosixSignalRegistration[] _signals;
    private readonly Lock _runningLock = new(); // guards _running and _signalled
    private readonly Stack<Pipeline> _running = new();
    private int _signalled; // exit status that a signal asked for, or 0
    private bool _interactive;

    public Session(CommandLine line)
    {
        _line = line;
        bool canAsk = !line.NonInteractive && !Console.IsInputRedirected;
        _host = new ShellHost(this, canAsk);

        // CreateDefault2: the engine's own cmdlets. CreateDefault would look for modules that this shell does not have.
        var state = InitialSessionState.CreateDefault2();
        state.ThreadOptions = PSThreadOptions.ReuseThread;
        _runspace = RunspaceFactory.CreateRunspace(_host, state);
        _runspace.Open();
        Runspace.DefaultRunspace = _runspace;

        _signals =
        [
            PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal),
            PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal),
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, OnSignal),
        ];
    }

    public Runspace Runspace => _runspace;

    /// <returns>The process's exit status, by the rules of pwsh.</returns>
    public int Run()
    {
        bool ok = true;
        switch (_line.What)
        {
            case CommandLine.Action.Command:
                ok = Execute(TextCommand(_line.Text), InputFor(_line.Text));
                break;
            case CommandLine.Action.StandardInput:
                ok = Execute(TextCommand(Console.In.ReadToEnd()), null);
                break;
            case CommandLine.Action.File:
                string? path = FindScript(_line.Text);
                if (path is null)
                {
                    Console.Error.WriteLine($"The argument '{_line.Text}' is not recognized as the name of a script file. Check the spelling of the name, or if a path was included, verify that the path is correct and try again.");
                    return ExitUsage;
                }

                // A script ends well unless it is thrown out of, or says otherwise by exit: an error it passed over doesn't count.
                ok = Execute(ScriptCommand(path, _line.Arguments), null, fileRules: true);
                break;
            case CommandLine.Action.Interactive when Console.IsInputRedirected:
                ok = Execute(TextCommand(Console.In.ReadToEnd()), null);
                break;
            case CommandLine.Action.Interactive:
                return Interact();
        }

        if (_line.NoExit && _host.ExitCode is null && !Console.IsInputRedirected)
        {
            return Interact();
        }

        _host.Screen.ClearProgress();
        return ExitStatus(ok);
    }

    public void Dispose()
    {
        foreach (PosixSignalRegistration signal in _signals)
        {
            signal.Dispose();
        }

        _runspace.Dispose();
    }

    /// <summary>The prompt loop, until <c>exit</c>, the end of input, or (nested) the end of the nested prompt.</summary>
    public void PromptLoop(Func<bool> done)
    {
        var editor = new LineEditor(_runspace, _host.Screen);
        while (!done() && _host.ExitCode is null)
        {
            string? text = editor.Read(Prompt(), "\u003e\u003e ");
            if (text is null)
            {
                return;
            }

            if (!string.IsNullOrWhiteSpace(text))
            {
                _ = Execute(TextCommand(text), null);
                _host.Screen.ClearProgress();
            }
        }
    }

    private int Interact()
    {
        _interactive = true;
        if (!_line.NoLogo)
        {
            Console.WriteLine($"PowerShell engine {typeof(PSObject).Assembly.GetName().Version?.ToString(3)}: only the engine's own cmdlets. Type 'exit' to leave.");
        }

        Comfort.Define(this);
        if (!_line.NoProfile && FindProfile() is { } profile)
        {
            _ = Execute(new Command(profile, isScript: false, useLocalScope: false), null);
        }

        PromptLoop(() => _signalled is ExitTerminated);
        return _host.ExitCode ?? _signalled;
    }

    private static string? FindProfile()
    {
        string path = Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".config", "powershell", "FCtrans_profile.ps1");
        return File.Exists(path) ? path : null;
    }

    private string Prompt()
    {
        try
        {
            using PowerShell shell = NewShell();
            return shell.AddScript("prompt").Invoke<string>() is [{ } text, ..] ? text : "PS> ";
        }
        catch (RuntimeException)
        {
            return "PS> ";
        }
    }

    /// <summary>For short questions between pipelines (prompt, definitions). Nested when a nested prompt is running.</summary>
    public PowerShell NewShell()
    {
        if (_runspace.RunspaceAvailability == RunspaceAvailability.AvailableForNestedCommand)
        {
            return PowerShell.Create(RunspaceMode.CurrentRunspace);
        }

        PowerShell shell = PowerShell.Create();
        shell.Runspace = _runspace;
        return shell;
    }

    /// <returns>False when it was thrown out of, stopped, or (unless <paramref name="fileRules"/>) its last statement failed.</returns>
    public bool Execute(Command command, IEnumerable<string>? input, bool fileRules = false)
    {
        bool nested = _runspace.RunspaceAvailability == RunspaceAvailability.AvailableForNestedCommand;

        // Typed text is added to the history, also because the engine restores $? after a pipeline that isn't.
        using Pipeline pipeline = (command.IsScript, nested) switch
        {
            (true, true) => _runspace.CreateNestedPipeline(command.CommandText, addToHistory: true),
            (true, false) => _runspace.CreatePipeline(command.CommandText, addToHistory: true),
            (false, true) => _runspace.CreateNestedPipeline(),
            (false, false) => _runspace.CreatePipeline(),
        };
        if (!command.IsScript)
        {
            pipeline.Commands.Add(command);
        }

        // Errors travel with the output, so that both appear in the order in which they were written.
        pipeline.Commands[0].MergeMyResults(PipelineResultTypes.Error, PipelineResultTypes.Output);
        pipeline.Commands.Add(new Command("Out-Default", isScript: false, useLocalScope: true));
        if (fileRules)
        {
            LetExitReachTheHost();
        }

        lock (_runningLock)
        {
            if (_signalled != 0 && !_interactive)
            {
                return false;
            }

            _signalled = 0;
            _running.Push(pipeline);
        }

        try
        {
            if (input is null)
            {
                _ = pipeline.Invoke();
            }
            else
            {
                _ = pipeline.Invoke(input);
            }

            return fileRules || pipeline.PipelineStateInfo.State == PipelineState.Completed && LastStatementSucceeded();
        }
        catch (PipelineStoppedException)
        {
            return false;
        }
        catch (RuntimeException e)
        {
            Report(e);
            return false;
        }
        finally
        {
            lock (_runningLock)
            {
                _ = _running.Pop();
            }
        }
    }

    private int ExitStatus(bool ok) => _signalled != 0 ? _signalled : _host.ExitCode ?? (ok ? 0 : 1);

    // Read directly: asking by a pipeline would show that pipeline's own state.
    private bool LastStatementSucceeded() => _runspace.SessionStateProxy.GetVariable("?") is not false;

    /// <summary>
    /// Makes <c>exit</c> of the script that runs next reach <see cref="ShellHost.SetShouldExit"/> instead of ending as
    /// $LASTEXITCODE, which a native command may have set as well. pwsh uses this switch of the engine too; it has no public name.
    /// </summary>
    private void LetExitReachTheHost()
    {
        const BindingFlags any = BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public;
        object? context = _runspace.GetType().GetProperty("ExecutionContext", any)?.GetValue(_runspace);
        PropertyInfo rethrow = context?.GetType().GetProperty("ScriptCommandProcessorShouldRethrowExit", any)
            ?? throw new MissingMemberException("This version of System.Management.Automation has no ScriptCommandProcessorShouldRethrowExit; use the version in Directory.Packages.props.");
        rethrow.SetValue(context, true);
    }

    /// <summary>Shows what ended a pipeline the way that the engine formats any error record.</summary>
    private void Report(RuntimeException exception)
    {
        // The engine's concise view of a parse error in typed text is empty; its message has the line and the place.
        if (exception is ParseException && string.IsNullOrEmpty(exception.ErrorRecord?.InvocationInfo?.ScriptName))
        {
            _host.UI.WriteErrorLine("ParserError: " + exception.Message);
            return;
        }

        try
        {
            using PowerShell shell = NewShell();
            var record = PSObject.AsPSObject(exception.ErrorRecord ?? new ErrorRecord(exception, "PipelineFailed", ErrorCategory.NotSpecified, null));

            // Without this mark Out-Default takes the record for output. pwsh sets it too; it has no public name.
            PropertyInfo? stream = typeof(PSObject).GetProperty("WriteStream", BindingFlags.Instance | BindingFlags.NonPublic);
            stream?.SetValue(record, Enum.Parse(stream.PropertyType, "Error"));
            _ = shell.AddScript("param($r) $global:Error.Insert(0, $r)").AddParameter("r", record.BaseObject).Invoke();
            shell.Commands.Clear();
            _ = shell.AddCommand("Out-Default").Invoke(new[] { record });
        }
        catch (RuntimeException)
        {
            _host.UI.WriteErrorLine(exception.Message);
        }
    }

    private void OnSignal(PosixSignalContext context)
    {
        context.Cancel = true;
        lock (_runningLock)
        {
            _signalled = context.Signal == PosixSignal.SIGINT ? ExitInterrupted : ExitTerminated;
            if (_running.TryPeek(out Pipeline? pipeline))
            {
                pipeline.StopAsync();

                // A terminal sends Ctrl+C to the whole process group; these signals come to us alone, and the pipeline
                // stops only when the program that it waits for has ended.
                if (_signalled == ExitTerminated)
                {
                    Children.Terminate();
                }
            }
            else if (!_interactive || _signalled == ExitTerminated)
            {
                // Nothing runs that would need to clean up (start-up, or waiting for standard input).
                Environment.Exit(_signalled);
            }
        }
    }

    private static Command TextCommand(string text) => new(text, isScript: true, useLocalScope: false);

    /// <summary>Binds a script's arguments as pwsh does: <c>-Name</c>, <c>-Name:value</c>, <c>-Switch:$false</c>, else positional.</summary>
    private static Command ScriptCommand(string path, IReadOnlyList<string> arguments)
    {
        var command = new Command(path, isScript: false, useLocalScope: false);
        foreach (string argument in arguments)
        {
            if (argument.Length < 2 || argument[0] != '-' || !(char.IsLetter(argument[1]) || argument[1] is '_' or '?'))
            {
                command.Parameters.Add(null, argument);
                continue;
            }

            int colon = argument.IndexOf(':', StringComparison.Ordinal);
            if (colon < 0)
            {
                command.Parameters.Add(argument);
                continue;
            }

            string value = argument[(colon + 1)..];
            command.Parameters.Add(argument[..colon], value.ToLowerInvariant() switch
            {
                "$true" => true,
                "$false" => false,
                _ => value,
            });
        }

        return command;
    }

    /// <summary>Standard input is read only for a command that asks for it: an inherited pipe that never ends must not hold us up.</summary>
    private static IEnumerable<string>? InputFor(string text)
    {
        if (!Console.IsInputRedirected)
        {
            return null;
        }

        ScriptBlockAst ast = Parser.ParseInput(text, out _, out _);
        bool asks = ast.Find(static node => node is VariableExpressionAst v && v.VariablePath.UserPath.Equals("input", StringComparison.OrdinalIgnoreCase), searchNestedScriptBlocks: false) is not null;
        return asks ? Lines() : null;

        static IEnumerable<string> Lines()
        {
            while (Console.In.ReadLine() is { } line)
            {
                yield return line;
            }
        }
    }

    private static string? FindScript(string name)
    {
        string path = Path.GetFullPath(name);
        if (File.Exists(path))
        {
            return path;
        }

        return File.Exists(path + ".ps1") ? path + ".ps1" : null;
    }
}
