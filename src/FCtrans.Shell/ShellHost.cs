using System.Globalization;
using System.Management.Automation.Host;

namespace FCtrans.Shell;

/// <summary>The engine's view of this program.</summary>
internal sealed class ShellHost : PSHost
{
    private readonly Session _session;
    private readonly Guid _id = Guid.NewGuid();
    private int _nestedPrompts;

    public ShellHost(Session session, bool canAsk)
    {
        _session = session;
        Screen = new ShellScreen(canAsk);
    }

    public ShellScreen Screen { get; }

    /// <summary>What <c>exit n</c> asked for; null while nothing has.</summary>
    public int? ExitCode { get; private set; }

    public override string Name => "FCtrans.Shell";

    public override Version Version { get; } = typeof(ShellHost).Assembly.GetName().Version ?? new Version(0, 0);

    public override Guid InstanceId => _id;

    public override PSHostUserInterface UI => Screen;

    public override CultureInfo CurrentCulture => CultureInfo.CurrentCulture;

    public override CultureInfo CurrentUICulture => CultureInfo.CurrentUICulture;

    public override void SetShouldExit(int exitCode) => ExitCode = exitCode;

    /// <summary>The "Suspend" answer of a confirmation: a prompt inside the running pipeline.</summary>
    public override void EnterNestedPrompt()
    {
        if (!Screen.CanAsk)
        {
            throw new InvalidOperationException("A nested prompt needs a terminal.");
        }

        int level = ++_nestedPrompts;
        _session.PromptLoop(() => _nestedPrompts < level);
        if (_nestedPrompts >= level)
        {
            // `exit` inside a nested prompt leaves that prompt only.
            _nestedPrompts = level - 1;
            ExitCode = null;
        }
    }

    public override void ExitNestedPrompt()
    {
        if (_nestedPrompts > 0)
        {
            _nestedPrompts--;
        }
    }

    public override void NotifyBeginApplication() => Screen.ClearProgress();

    public override void NotifyEndApplication()
    {
    }
}
